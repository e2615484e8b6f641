"""The pool as a Celery worker has it: starts tasks, and does what the governor asks for."""

# celery-types does not know the private parts that this rests on.
# mypy: disable-error-code="attr-defined,misc"

from __future__ import annotations

from typing import Any

from celery.concurrency import prefork

from recyclery_worker.delivery.lease import keeper
from recyclery_worker.link import Departure, Trace
from recyclery_worker.pool.prefork import Pool


class TaskPool(prefork.TaskPool):
    """Celery's prefork pool over `Pool`."""

    Pool = Pool

    @property
    def max_tasks_per_child(self) -> int | None:
        """The limit in force; None for no limit."""
        limit: int | None = self._pool._maxtasksperchild
        return limit

    @property
    def departures(self) -> list[Departure]:
        """The children told to leave lately."""
        return list(self._pool.departures)

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Start a task, unless it is not this worker's any more; raises TaskRevokedError then."""
        kept = keeper()
        if kept is not None:
            kept.assure()
        return super().apply_async(*args, **kwargs)

    def tasks_by_child(self) -> dict[int, int]:
        """Return how many tasks each child has done, by its pid."""
        return {process.pid: process._recyclery.tasks_done for process in self._pool._pool}

    def set_max_tasks(self, max_tasks: int) -> None:
        """See `Pool.set_max_tasks`."""
        self._pool.set_max_tasks(max_tasks)

    def resize(self, processes: int) -> None:
        """See `Pool.resize`."""
        self._pool.resize(processes)

    def trace(self, order: Trace) -> int | None:
        """See `Pool.trace`."""
        pid: int | None = self._pool.trace(order)
        return pid

    def retire(self, pid: int) -> str:
        """See `Pool.retire`."""
        refusal: str = self._pool.retire(pid)
        return refusal
