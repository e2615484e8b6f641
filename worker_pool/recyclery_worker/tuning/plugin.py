"""Hangs into a worker what it does differently under `recyclery tune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals

from recyclery_worker.tuning.isolation import consume_apart, keep_keys_apart, keep_messages_apart
from recyclery_worker.tuning.messages import MARKS, own_space
from recyclery_worker.tuning.task_log import mark_tasks


def install_if_tuned() -> None:
    """Keep this worker apart, where it belongs to a tuning."""
    space = own_space()
    if space is None:
        return
    # Before anything connects.
    keep_keys_apart(space)

    def begin(instance: Any = None, **_: Any) -> None:
        keep_messages_apart(instance.app, space)
        consume_apart(instance.app, space)
        mark_tasks(space, Path(os.environ[MARKS]))

    # The worker chooses its queues soon after this signal (celery/apps/worker.py).
    signals.celeryd_init.connect(begin, weak=False, dispatch_uid="recyclery.tuned")
