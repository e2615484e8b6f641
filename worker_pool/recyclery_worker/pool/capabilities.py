"""What the supervisor can do with this worker's pool: all of it with ours, less with others, and why.

A pool that is not ours is followed by Celery's public signals: sessions, reports of tasks, a clean way out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from celery import signals
from celery.concurrency import get_implementation, prefork

from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.pool.child import become_session_leader, end_session, introduce, reporter


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
    if missing("pool"):
        return Fit(
            retires=False,
            forks=True,
            one_at_a_time=True,
            lack=(
                f"{describe_missing('pool')}: this worker runs Celery's own pool. No child of it can be "
                "retired and no limit changed while it runs; the supervisor replaces the worker"
            ),
        )
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


def follow_by_signals(fit: Fit) -> None:
    """Have the processes that run this worker's tasks make themselves known."""
    if fit.forks:
        signals.worker_process_init.connect(on_child_init, dispatch_uid="recyclery.child_init")
        signals.worker_process_shutdown.connect(on_child_shutdown, dispatch_uid="recyclery.child_shutdown")
    else:
        introduce()
    if fit.one_at_a_time:
        signals.task_prerun.connect(on_task_prerun, dispatch_uid="recyclery.task_prerun")
        signals.task_postrun.connect(on_task_postrun, dispatch_uid="recyclery.task_postrun")


def on_child_init(**_: Any) -> None:
    """In a fresh pool child."""
    become_session_leader()


def on_child_shutdown(**_: Any) -> None:
    """In a pool child that leaves."""
    end_session()


def on_task_prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    """Before a task, in the process that runs it."""
    told = reporter()
    if told is not None:
        told.task_started(task_id=task_id, task_name=task.name)


def on_task_postrun(**_: Any) -> None:
    """After a task, in the process that ran it."""
    told = reporter()
    if told is not None:
        # Nobody else mends what is not told here.
        told.task_ended(tell=True)
