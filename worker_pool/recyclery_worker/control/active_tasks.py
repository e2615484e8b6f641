"""The tasks that a worker's main process knows to be running."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from celery.worker import state as worker_state


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a child has accepted and not finished."""

    task_id: str
    name: str


def running_tasks() -> Iterator[tuple[int, RunningTask]]:
    """Yield (child's pid, task) for every task a child of this worker has accepted."""
    for request in list(worker_state.active_requests):
        pid = getattr(request, "worker_pid", None)
        if pid and pid != os.getpid():
            yield pid, RunningTask(task_id=request.id, name=request.name)
