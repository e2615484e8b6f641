"""Hangs the gate into a worker, where its broker is one that the parked list can be kept in."""

from __future__ import annotations

import threading
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger

from recyclery_worker.delivery.lease import keeper
from recyclery_worker.delivery.registry import connected
from recyclery_worker.link import Fell
from recyclery_worker.parking.admission import Gate
from recyclery_worker.parking.reported_deaths import seen
from recyclery_worker.parking.store import open_lot

logger = get_logger(__name__)


class GateStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is taken."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Stand before the pool, of whichever kind."""
        kept = keeper()
        starts = kept.starts if kept is not None else None
        parent.pool.apply_async = Gate(parent.pool.apply_async, parent.hostname, starts)


def describe_lack(app: Any) -> str:
    """Say why tasks of an app's broker are not parked; empty where they are."""
    with app.connection_for_write() as connection:
        kind = connection.transport.driver_type
    if kind == "redis":
        return ""
    return (
        f"a task that keeps killing its process is not parked: only with Redis as the broker, and it is {kind}"
    )


def note_fell(app: Any, fell: Fell) -> str:
    """Add what the governor saw to a death that is noted, or will be; return why not, empty where it is."""
    if keeper() is None:
        return "deaths are counted only with Redis as the broker"
    if seen.hear(fell):
        # Not on the worker's loop: Redis may not answer.
        threading.Thread(target=complete_noted, args=(app, fell), daemon=True).start()
    return ""


def complete_noted(app: Any, fell: Fell) -> None:
    """Add what the governor saw to a death that is in Redis already."""
    try:
        with connected(app) as channel:
            open_lot(channel).complete_death(fell)
    except Exception as error:  # Redis is away: it is a figure less for whoever looks.
        logger.debug("what was seen of %s is not noted: %s", fell.task_id, error)
