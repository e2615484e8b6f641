"""What this worker takes from its queues, whether it could take more, and what its children run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery import signals
from celery.worker import state
from celery.worker import state as worker_state

_received = 0


def follow_intake() -> None:
    """Count every message that becomes a task here, and those that cannot or must not."""
    for signal in (signals.task_received, signals.task_unknown, signals.task_rejected, signals.task_revoked):
        signal.connect(count_one, dispatch_uid="recyclery.intake")


def count_one(**_: Any) -> None:
    """Count a message."""
    global _received
    _received += 1


def received() -> int:
    """Return how many messages this worker has taken since its start."""
    return _received


def consumed_queues(worker: Any) -> list[str]:
    """Return the queues it takes tasks from: all of its own, but for those that were cancelled."""
    return list(worker.app.amqp.queues.consume_from)


def has_room(worker: Any) -> bool:
    """Tell whether it could take a task: it has fewer in hand than it may run, and no limit of its own."""
    if worker.consumer is None or worker.app.conf.get("worker_eta_task_limit"):
        return False
    rate_limited = any(
        bucket is not None and bucket.contents for bucket in worker.consumer.task_buckets.values()
    )
    return not rate_limited and len(state.reserved_requests) < worker.pool.num_processes


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
