"""Tasks that run past their hard time limit, which the pool should have ended and did not.

Celery 5.5 forgets the limits of running tasks when it connects to its broker again (celery/celery#10888).
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Any


def find_overdue(pool: Any) -> dict[int, float]:
    """Return for how many seconds tasks have been past their hard limits, by their children's pids."""
    return {job._worker_pid: seconds for job, seconds in overdue_jobs(pool)}


def time_out(pool: Any, pid: int) -> str:
    """End a child's task as its hard limit would have; return why that cannot be done, empty when it is."""
    for job, _ in overdue_jobs(pool):
        if job._worker_pid == pid:
            pool.on_hard_timeout(job)
            return ""
    return f"{pid} has no task that is past its hard time limit"


def overdue_jobs(pool: Any) -> Iterator[tuple[Any, float]]:
    """Yield the billiard pool's jobs that are past their hard limit, and by how many seconds."""
    for job in list(pool._cache.values()):
        accepted, limit = job._time_accepted, job._timeout
        if accepted and limit and job._worker_pid and monotonic() > accepted + limit and not job.ready():
            yield job, monotonic() - accepted - limit
