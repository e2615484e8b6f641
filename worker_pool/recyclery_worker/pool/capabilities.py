"""What the supervisor can do with this worker's pool: all of it with ours, less with others, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery.concurrency import get_implementation, prefork

from recyclery_worker.compat import describe_missing, missing_hooks


@dataclass(frozen=True, slots=True)
class Fit:
    """What a pool is to the supervisor; `lack` says in one line what cannot be done, empty with ours."""

    retires: bool
    """Whether children are let go one by one and limits changed while it runs; else the worker is replaced."""
    forks: bool
    """Whether tasks run in child processes."""
    one_at_a_time: bool
    """Whether no two tasks run in one process at a time."""
    lack: str


def read_fit(worker: Any) -> Fit:
    """Return how the pool of a Celery worker (WorkController) fits, from its `worker_init` signal on."""
    kind = get_implementation(worker.pool_cls)
    name = kind.__module__.rpartition(".")[2]
    if not issubclass(kind, prefork.TaskPool):
        return Fit(
            retires=False,
            forks=False,
            one_at_a_time=name == "solo",
            lack=(
                f"the {name} pool runs tasks in the worker's main process, so there is no child to recycle: "
                "the supervisor kills what a dead worker left, and replaces one that is past its budget"
            ),
        )
    if missing_hooks():
        return Fit(retires=False, forks=True, one_at_a_time=True, lack=describe_missing())
    if not worker.use_eventloop:
        return Fit(
            retires=False,
            forks=True,
            one_at_a_time=True,
            lack=(
                "this broker's transport has no event loop, so Celery runs its blocking pool: no child of it "
                "can be retired and no limit changed while it runs; the supervisor replaces the worker"
            ),
        )
    return Fit(retires=True, forks=True, one_at_a_time=True, lack="")
