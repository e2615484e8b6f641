"""Notes the deaths of the tasks that a worker had begun when it died itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from recyclery_worker.delivery.registry import Generation
from recyclery_worker.parking.in_flight import read_starts
from recyclery_worker.parking.records import Death
from recyclery_worker.parking.reported_deaths import seen
from recyclery_worker.parking.store import open_lot


def note_deaths(channel: Any, generation: Generation, tags: Iterable[str]) -> None:
    """Note the death of every run that a dead generation had begun, of the messages it still holds.

    Before they are given back: whoever takes one is to know. Raises what redis raises when Redis is away.
    """
    lot = open_lot(channel)
    begun = read_starts(lot, generation.id)
    for run in (begun[tag] for tag in tags if tag in begun):
        death = Death(at=time.time(), how="its worker died", node=generation.node, pid=run.pid)
        lot.note_death(run, seen.complete(run.task_id, death))
