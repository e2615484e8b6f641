"""Hangs the worker side into Celery: its bootsteps, in a worker that the supervisor started."""

from __future__ import annotations

from typing import Any

from celery import signals

from recyclery_worker.broker import BrokerWait
from recyclery_worker.server import LinkServer


def install() -> None:
    """Connect to Celery's signal; doing it twice is doing it once."""
    signals.worker_init.connect(on_worker_init, dispatch_uid="recyclery.worker_init")


def on_worker_init(sender: Any = None, **_: Any) -> None:
    """Add our bootsteps: the worker reads them right after this signal."""
    steps: set[type] = sender.app.steps["worker"]
    steps.update({LinkServer, BrokerWait})
