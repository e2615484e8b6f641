"""Notes the deaths of the tasks that a worker had begun when it died itself."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from recyclery_worker.delivery.generations import Generation
from recyclery_worker.parking.lot import open_lot
from recyclery_worker.parking.records import Death
from recyclery_worker.parking.seen import seen
from recyclery_worker.parking.starts import read_starts


def note_deaths(channel: Any, generation: Generation, tags: Iterable[str]) -> None:
    """Note the death of every run that a dead generation had begun, of the messages it still holds.

    Before they are given back: whoever takes one is to know. Raises what redis raises when Redis is away.
    """
    lot = open_lot(channel)
    begun = read_starts(lot, generation.id)
    for run in (begun[tag] for tag in tags if tag in begun):
        death = Death(at=time.time(), how="its worker died", node=generation.node, pid=run.pid)
        lot.note_death(run, seen.complete(run.task_id, death))
