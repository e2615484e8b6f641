"""The prefork pool whose children can be retired one by one and whose limit can be changed while it runs.

Chosen by `celery worker -P custom` with CELERY_CUSTOM_WORKER_POOL=recyclery_worker.pool:TaskPool. It rests on
private parts of Celery and billiard (read in 5.7.0 and 4.3.2); `missing_hooks` tells which are not there.
"""

# celery-types does not know the private parts that this rests on.
# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from celery.concurrency import asynpool, prefork
from celery.worker import state as worker_state

from recyclery_worker.child import become_session_leader

HOOKS = ("_pool", "_all_inqueues", "_busy_workers", "_active_writes", "_maxtasksperchild", "_on_ready_counters")


class RetireRefused(Exception):
    """A child cannot be retired now; the message says why."""


@dataclass(frozen=True, slots=True)
class RunningTask:
    """A task that a child has accepted and not finished."""

    task_id: str
    name: str


class Worker(asynpool.Worker):
    """What runs in a pool child."""

    def after_fork(self) -> None:
        """Lead a session before anything of the user's runs."""
        become_session_leader()
        super().after_fork()


class Pool(asynpool.AsynPool):
    """Celery's event-driven process pool, with children that can be asked to leave."""

    Worker = Worker

    def _track_child_process(self, proc: Any, hub: Any) -> None:
        """Watch a child by its pidfd.

        billiard's sentinel is a pipe whose other end later children inherit: it tells of an exit only once
        they have left too, and until then only the 5 s maintenance timer replaces a child.
        """
        if getattr(proc, "_sentinel_poll", None) is None:
            # An old kernel or a strict seccomp profile has no pidfd: then the sentinel has to do.
            with contextlib.suppress(OSError):
                proc._sentinel_poll = os.pidfd_open(proc.pid)
        super()._track_child_process(proc, hub)

    def retire(self, pid: int) -> None:
        """Let the child `pid` leave after its current task, or at once when it has none.

        Its inbox takes no further job, then gets the pool's own end-of-work message (None), which the child
        reads when it next asks for work. Raises RetireRefused.
        """
        process, _ = self._process_by_pid(pid)
        if process is None:
            raise RetireRefused(f"{pid} is not a child of this pool")
        if getattr(process, "_recyclery_retired", False):
            return
        inbox = process.inqW_fd
        if inbox not in self._all_inqueues:
            raise RetireRefused(f"{pid} has not finished starting")
        if inbox in self._active_writes:
            raise RetireRefused(f"{pid} is being given a task; ask again")
        self._all_inqueues.discard(inbox)
        # Work is handed out while fewer are busy than there are: a leaving child counts among neither.
        self._busy_workers.discard(inbox)
        process._recyclery_retired = True
        process._controlled_termination = True
        process.inq.put(None)


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool over `Pool`."""

    Pool = Pool

    @property
    def processes(self) -> list[Any]:
        """The pool's child processes."""
        return list(self._pool._pool)

    @property
    def max_tasks_per_child(self) -> int | None:
        """The limit that children started from now on get; None for no limit."""
        limit: int | None = self._pool._maxtasksperchild
        return limit

    @max_tasks_per_child.setter
    def max_tasks_per_child(self, max_tasks: int) -> None:
        self._pool._maxtasksperchild = max_tasks

    def tasks_done(self, pid: int) -> int:
        """Tasks that the child has finished; 0 for an unknown one."""
        counter = self._pool._on_ready_counters.get(pid)
        return counter.value if counter is not None else 0

    def retire(self, pid: int) -> None:
        """See `Pool.retire`."""
        self._pool.retire(pid)

    def missing_hooks(self) -> list[str]:
        """Private parts of Celery's pool that this one needs and cannot find."""
        return [name for name in HOOKS if not hasattr(self._pool, name)]


def running_tasks() -> Iterator[tuple[int, RunningTask]]:
    """Yield (child's pid, task) for every task a child of this worker has accepted."""
    for request in list(worker_state.active_requests):
        pid = getattr(request, "worker_pid", None)
        if pid and pid != os.getpid():
            yield pid, RunningTask(task_id=request.id, name=request.name)
