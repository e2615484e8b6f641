"""The deaths of tasks, and the marks of those in flight, by which others find what a dead worker had begun.

`recyclery:ID:started` is a hash of a generation, delivery tag to JSON of `StartedRun`. A first run is written
within two seconds, together with the lease, so that it costs nothing; the run of a redelivered message is
written before it begins. Marks of runs that have ended mean nothing, as nobody holds their messages.
"""

import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from celery.worker import state
from msgspec.structs import replace

from recyclery_worker.link import DeathReport
from recyclery_worker.parking.records import Death, StartedRun, in_flight_key, name_run, with_report
from recyclery_worker.parking.store import DeadLetterStore, open_dead_letters

REPORTS_KEPT = 100
# Renewed while a task runs, so that the marks of a worker that came back from a freeze expire by themselves.
MARKS_KEPT_SECONDS = 24 * 3600


class ReportedDeaths:
    """What the governor reports of children that died, which may come before or after the death is recorded."""

    def __init__(self) -> None:
        self._reports: deque[DeathReport] = deque(maxlen=REPORTS_KEPT)
        self._recorded: deque[tuple[str, int | None]] = deque(maxlen=REPORTS_KEPT)

    def add(self, report: DeathReport) -> bool:
        """Keep a report; return whether that death was recorded before, without it."""
        self._reports.append(report)
        return (report.task_id, report.pid) in self._recorded

    def complete(self, task_id: str, death: Death) -> Death:
        """Return a death that is about to be recorded with what was reported of it, if anything was."""
        self._recorded.append((task_id, death.pid))
        for report in self._reports:
            if (report.task_id, report.pid) == (task_id, death.pid):
                return with_report(death, report)
        return death


# The governor reports to a worker's main process, of which there is one in a process.
reported = ReportedDeaths()


class InFlight:
    """The marks of the tasks that one generation runs."""

    def __init__(self, generation_id: str) -> None:
        self._key = in_flight_key(generation_id)
        self._marked: dict[str, StartedRun] = {}

    def mark(self, store: DeadLetterStore, tag: str, run: StartedRun) -> None:
        """Write that the run of a redelivered message begins; raises redis.RedisError."""
        self._marked[tag] = run
        self._write(store, {tag: run}, ())

    def update(self, store: DeadLetterStore) -> None:
        """Mark what has begun, remove the marks of what has ended; raises redis.RedisError."""
        # A worker that was told to stop has no marks: what it cuts off is no death of a task.
        if is_stopping():
            self.clear(store)
            return
        marked = dict(self._marked)
        # Read after the marks: a message is received before it is marked.
        requests = {request.message.delivery_tag: request for request in list(state.requests.values())}
        begun = {}
        for tag, request in requests.items():
            run = marked.get(tag)
            if run is None and not request.delivery_info["redelivered"]:
                run = StartedRun(name_run(tag), request.id)
            if request.time_start and run is not None:
                begun[tag] = replace(run, pid=request.worker_pid)
        ended = marked.keys() - requests.keys()
        self._write(store, {tag: run for tag, run in begun.items() if marked.get(tag) != run}, ended)
        self._marked.update(begun)
        for tag in ended:
            self._marked.pop(tag, None)

    def clear(self, store: DeadLetterStore) -> None:
        """Remove all marks; raises redis.RedisError."""
        store.client.delete(store.prefix + self._key)

    def _write(self, store: DeadLetterStore, begun: Mapping[str, StartedRun], ended: Collection[str]) -> None:
        key = store.prefix + self._key
        with store.client.pipeline() as pipe:
            for tag, run in begun.items():
                pipe.hset(key, tag, msgspec.json.encode(run))
            if ended:
                pipe.hdel(key, *ended)
            if self._marked:
                pipe.expire(key, MARKS_KEPT_SECONDS)
            pipe.execute()


def read_in_flight(store: DeadLetterStore, generation_id: str) -> dict[str, StartedRun]:
    """Return the runs that a generation had begun, by delivery tag; raises redis.RedisError."""
    entries: Any = store.client.hgetall(store.prefix + in_flight_key(generation_id))
    return {tag.decode(): msgspec.json.decode(entry, type=StartedRun) for tag, entry in entries.items()}


def record_worker_death(channel: Any, generation_id: str, node: str, tags: Iterable[str]) -> None:
    """Record the death of every run that a dead worker had begun, of the messages that it still holds.

    Called before these are given back, as whoever takes one must know. Raises what redis raises when Redis is
    away.
    """
    store = open_dead_letters(channel)
    begun = read_in_flight(store, generation_id)
    for run in (begun[tag] for tag in tags if tag in begun):
        death = Death(at=time.time(), how="its worker died", node=node, pid=run.pid)
        store.record_death(run, reported.complete(run.task_id, death))


def is_stopping() -> bool:
    """Return whether this worker was told to stop, warmly or at once."""
    return is_requested(state.should_stop) or is_terminating()


def is_terminating() -> bool:
    """Return whether this worker was told to stop at once: it then kills its own tasks."""
    return is_requested(state.should_terminate)


def is_requested(flag: int | bool | None) -> bool:
    """Return whether a flag of celery.worker.state is set: it is then an exit code, which may be 0."""
    return flag is not None and flag is not False
