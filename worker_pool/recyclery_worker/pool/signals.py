"""A pool that is not ours, followed by Celery's public signals: sessions, reports of tasks, a clean way out."""

from __future__ import annotations

from typing import Any

from celery import signals

from recyclery_worker.pool.capabilities import Fit
from recyclery_worker.pool.child import become_session_leader, end_session, introduce, reporter


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
