"""Installs in a worker under `recyclery tune` what it does differently: isolation, and the log of its tasks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals

from recyclery_worker.link import now
from recyclery_worker.tuning.isolation import isolate_app, isolate_keys, isolate_messages
from recyclery_worker.tuning.messages import MARKS, Space, open_log, own_space


def install_if_tuned() -> None:
    """Isolate this worker, where it belongs to a tuning."""
    space = own_space()
    if space is None:
        return
    # Before the first connection.
    isolate_keys(space)

    def begin(instance: Any = None, **_: Any) -> None:
        isolate_messages(instance.app, space)
        isolate_app(instance.app, space)
        log_tasks(space, Path(os.environ[MARKS]))

    # The worker chooses its queues soon after this signal (celery/apps/worker.py).
    signals.celeryd_init.connect(begin, weak=False, dispatch_uid="recyclery.tuned")


def log_tasks(space: Space, path: Path) -> None:
    """Write a line when a task of the tuning begins and ends, in any kind of pool."""
    write = open_log(path)

    def log(event: str, task_id: str, *words: object) -> None:
        number = space.number_of(task_id)
        if number is not None:
            write(event, number, f"{now():.6f}", *words)

    def began(task_id: str = "", **_: Any) -> None:
        log("began", task_id, os.getpid())

    def failed(task_id: str = "", exception: Any = None, **_: Any) -> None:
        log("ended", task_id, "FAILURE", type(exception).__name__)

    def ended(task_id: str = "", state: str | None = None, **_: Any) -> None:
        log("ended", task_id, state or "FAILURE")

    signals.task_prerun.connect(began, weak=False, dispatch_uid="recyclery.tuning.began")
    # Sent by the main process too, for a task past its hard time limit, whose child is gone.
    signals.task_failure.connect(failed, weak=False, dispatch_uid="recyclery.tuning.failed")
    signals.task_postrun.connect(ended, weak=False, dispatch_uid="recyclery.tuning.ended")
