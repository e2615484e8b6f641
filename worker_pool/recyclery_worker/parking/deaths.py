"""The deaths of tasks: what has begun is written down for whoever finds this worker dead.

`recyclery:ID:started` is a hash of a generation, delivery tag to JSON of `Run`. A first run is written down
within two seconds, beside the lease, for it is to cost nothing; that of a message that was redelivered before
it begins. Marks of runs that are over mean nothing: their messages are in nobody's hands.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from celery.worker import state
from msgspec.structs import replace

from recyclery_worker.link import Fell
from recyclery_worker.parking.records import Death, Run, complete, name_run, started_key
from recyclery_worker.parking.store import Lot, open_lot

KEPT = 100


class Seen:
    """The governor's last words on children that died."""

    def __init__(self) -> None:
        self._fell: deque[Fell] = deque(maxlen=KEPT)
        self._noted: deque[tuple[str, int | None]] = deque(maxlen=KEPT)

    def hear(self, fell: Fell) -> bool:
        """Keep what it saw; tell whether that death has been noted already, without it."""
        self._fell.append(fell)
        return (fell.task_id, fell.pid) in self._noted

    def complete(self, task_id: str, death: Death) -> Death:
        """Return a death that is to be noted with what the governor saw of it, if it has spoken."""
        self._noted.append((task_id, death.pid))
        for fell in self._fell:
            if (fell.task_id, fell.pid) == (task_id, death.pid):
                return complete(death, fell)
        return death


# The governor speaks to a worker's main process, and there is one in a process.
seen = Seen()


# Renewed while a task runs: what is left of a worker that came back from the dead goes by itself.
MARKS_KEPT_SECONDS = 24 * 3600


class Starts:
    """The marks of one generation."""

    def __init__(self, generation_id: str) -> None:
        self._key = started_key(generation_id)
        self._marked: dict[str, Run] = {}

    def mark(self, lot: Lot, tag: str, run: Run) -> None:
        """Write down that the run of a redelivered message begins; raises redis.RedisError."""
        self._marked[tag] = run
        self._write(lot, {tag: run}, ())

    def renew(self, lot: Lot) -> None:
        """Write down what has begun, take away what is over; raises redis.RedisError.

        A worker that was told to stop leaves no mark: what it runs may be cut off, and that is no task's death.
        """
        if is_stopping():
            self.clear(lot)
            return
        marked = dict(self._marked)
        # Looked at after the marks: a message is in hand before it is marked.
        requests = {request.message.delivery_tag: request for request in list(state.requests.values())}
        begun = {}
        for tag, request in requests.items():
            run = marked.get(tag) or first_run(request)
            if request.time_start and run is not None:
                begun[tag] = replace(run, pid=request.worker_pid)
        over = marked.keys() - requests.keys()
        self._write(lot, {tag: run for tag, run in begun.items() if marked.get(tag) != run}, over)
        self._marked.update(begun)
        for tag in over:
            self._marked.pop(tag, None)

    def clear(self, lot: Lot) -> None:
        """Leave no mark; raises redis.RedisError."""
        lot.client.delete(lot.prefix + self._key)

    def _write(self, lot: Lot, begun: Mapping[str, Run], over: Collection[str]) -> None:
        key = lot.prefix + self._key
        with lot.client.pipeline() as pipe:
            for tag, run in begun.items():
                pipe.hset(key, tag, msgspec.json.encode(run))
            if over:
                pipe.hdel(key, *over)
            if self._marked:
                pipe.expire(key, MARKS_KEPT_SECONDS)
            pipe.execute()


def read_starts(lot: Lot, generation_id: str) -> dict[str, Run]:
    """Return the runs that a generation had begun, by delivery tag; raises redis.RedisError."""
    entries: Any = lot.client.hgetall(lot.prefix + started_key(generation_id))
    return {tag.decode(): msgspec.json.decode(entry, type=Run) for tag, entry in entries.items()}


def first_run(request: Any) -> Run | None:
    """Return the run of a message that was never redelivered; None of any other."""
    if request.delivery_info["redelivered"]:
        return None
    return Run(name_run(request.message.delivery_tag), request.id)


def is_stopping() -> bool:
    """Tell whether this worker was told to stop, of itself or by somebody."""
    return any(told is not None and told is not False for told in (state.should_stop, state.should_terminate))


def note_deaths(channel: Any, generation_id: str, node: str, tags: Iterable[str]) -> None:
    """Note the death of every run that a dead generation had begun, of the messages it still holds.

    Before they are given back: whoever takes one is to know. Raises what redis raises when Redis is away.
    """
    lot = open_lot(channel)
    begun = read_starts(lot, generation_id)
    for run in (begun[tag] for tag in tags if tag in begun):
        death = Death(at=time.time(), how="its worker died", node=node, pid=run.pid)
        lot.note_death(run, seen.complete(run.task_id, death))
