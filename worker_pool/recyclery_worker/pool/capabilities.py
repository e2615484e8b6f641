"""What the supervisor can do with this worker's pool: everything with ours, less with others, and why.

A pool that is not ours is followed by Celery's public signals: sessions, reports of tasks, a clean exit.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from celery import signals
from celery.concurrency import get_implementation, prefork

from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.pool.child import become_session_leader, end_session_members, reporter, start_reporting


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a pool is capable of; `lack` says in one line what it is not, and is empty with ours."""

    lack: str = ""
    forks: bool = True  # Whether tasks run in child processes
    one_at_a_time: bool = True  # Whether no two tasks run in one process at the same time

    @property
    def retires(self) -> bool:
        """Whether single children can be retired and limits be changed; else the worker is replaced."""
        return not self.lack


@cache
def read_capabilities(worker: Any) -> Capabilities:
    """Return what the pool of a Celery worker (WorkController) can do, from its `worker_init` signal on."""
    kind = get_implementation(worker.pool_cls)
    name = kind.__module__.rpartition(".")[2]
    if not issubclass(kind, prefork.TaskPool):
        return Capabilities(
            f"the {name} pool runs tasks in the worker's main process, so there is no child to recycle: "
            "the supervisor kills what a dead worker left, and replaces one that is past its budget",
            forks=False,
            one_at_a_time=name == "solo",
        )
    if missing("pool"):
        return Capabilities(
            f"{describe_missing('pool')}: this worker runs Celery's own pool. No child of it can be retired "
            "and no limit changed while it runs; the supervisor replaces the worker"
        )
    if not worker.use_eventloop:
        return Capabilities(
            "this broker's transport has no event loop, so Celery runs its blocking pool: no child of it can "
            "be retired and no limit changed while it runs; the supervisor replaces the worker"
        )
    return Capabilities()


def connect_signals(capabilities: Capabilities) -> None:
    """Report the processes that run this worker's tasks, and the tasks, by signals."""
    if capabilities.forks:
        signals.worker_process_init.connect(become_session_leader, dispatch_uid="recyclery.child_init")
        signals.worker_process_shutdown.connect(end_session_members, dispatch_uid="recyclery.child_shutdown")
    else:
        start_reporting()
    if capabilities.one_at_a_time:
        signals.task_prerun.connect(on_task_prerun, dispatch_uid="recyclery.task_prerun")
        signals.task_postrun.connect(on_task_postrun, dispatch_uid="recyclery.task_postrun")


def on_task_prerun(task_id: str = "", task: Any = None, **_: Any) -> None:
    if (reports := reporter()) is not None:
        reports.task_started(task_id=task_id, task_name=task.name)


def on_task_postrun(**_: Any) -> None:
    if (reports := reporter()) is not None:
        # Short ones too: with another pool nobody corrects a report that is missing.
        reports.task_ended(force=True)
