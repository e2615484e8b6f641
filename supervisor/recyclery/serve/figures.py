"""How each figure of the metrics is read off one moment's readings; one that is not known now is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from recyclery.config.settings import Pool
from recyclery.decide.budget import level_bytes
from recyclery.health.heartbeat import tell_state
from recyclery.observe.snapshot import Child, PoolView
from recyclery.serve.exposition import Sample
from recyclery.serve.readings import Readings
from recyclery.state.task_stats import NO_SECONDS, combine_queue
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally

# A pool in any other state takes no tasks.
UP = frozenset({"running", "draining"})
OTHER_QUEUES = "other"
REASONS = ("budget", "max_tasks", "asked", "shrink", "preempt", "died", "replace", "hung")
Reader = Callable[[Readings], Iterable[Sample]]


def one(read: Callable[[Readings], float | None]) -> Reader:
    """Return a reader of one value without labels; None: not known."""

    def samples(readings: Readings) -> Iterator[Sample]:
        value = read(readings)
        if value is not None:
            yield Sample(value)

    return samples


def each_pool(read: Callable[[Readings, Pool], float | None]) -> Reader:
    """Return a reader of one value for each pool; None: not known."""

    def samples(readings: Readings) -> Iterator[Sample]:
        for pool in readings.settings.pools:
            value = read(readings, pool)
            if value is not None:
                yield Sample(value, {"pool": pool.name})

    return samples


def view_of(readings: Readings, pool: Pool) -> PoolView:
    """Return what PID 1 and the worker say of a pool."""
    views = {view.name: view for view in readings.snapshot.pools}
    return views.get(pool.name, PoolView(name=pool.name, state="stopped", pid=None))


def is_up(readings: Readings, pool: Pool) -> int:
    """Return 1 where a pool's worker runs and answers, or drains."""
    return int(tell_state(view_of(readings, pool)) in UP)


def children_of(readings: Readings, pool: Pool) -> list[Child]:
    """Return a pool's living children."""
    return [child for child in readings.snapshot.children if child.owner.pool == pool.name]


def unattributed(readings: Readings) -> int:
    """Return what of the floor no child holds."""
    held = sum(child.tree_bytes for child in readings.snapshot.children)
    return max(0, readings.snapshot.container.floor_bytes - held)


def pressure(readings: Readings) -> float | None:
    """Return the share of the last 10 s in which something waited for memory."""
    percent = readings.snapshot.container.pressure_percent
    return None if percent is None else percent / 100


def levels(readings: Readings) -> Iterator[Sample]:
    """Yield the levels at which the governor acts."""
    memory = readings.settings.memory
    for level, percent in (
        ("retire", memory.retire_percent),
        ("high", memory.high_percent),
        ("hard", memory.hard_percent),
    ):
        yield Sample(level_bytes(readings.snapshot, percent), {"level": level})


def browser_bytes(readings: Readings, pool: Pool) -> int:
    """Return what the browsers of a pool's children hold."""
    return sum(
        process.anon_bytes
        for child in children_of(readings, pool)
        for process in child.processes
        if process.is_browser
    )


def main_bytes(readings: Readings, pool: Pool) -> int:
    """Return what a pool's main processes hold: while one is replaced there are two."""
    return sum(view.main_bytes for view in readings.snapshot.workers if view.name == pool.name)


def holding(readings: Readings, pool: Pool) -> int | None:
    """Return 1 where the pool was told to take no tasks."""
    told = view_of(readings, pool).holding
    return None if told is None else int(told)


def recycles(readings: Readings) -> Iterator[Sample]:
    """Yield what was recycled, by why; from 0 on, for a counter first seen at 1 has not risen to Prometheus."""
    for pool in readings.settings.pools:
        counted = readings.counters.recycles.get(pool.name, {})
        for reason, count in {**dict.fromkeys(REASONS, 0), **counted}.items():
            yield Sample(count, {"pool": pool.name, "reason": reason})


def browsers(readings: Readings) -> Iterator[Sample]:
    """Yield the browsers by kind; each is of one kind."""
    census = readings.census
    for kind, count in (
        ("in_use", census.in_use - census.kept),
        ("kept", census.kept),
        ("leftover", census.leftovers),
        ("runaway", census.runaway),
        ("orphan", census.orphans),
        ("stranger", census.strangers),
    ):
        yield Sample(count, {"kind": kind})


def tasks(readings: Readings) -> Iterator[Sample]:
    """Yield what came of tasks."""
    for pool in readings.settings.pools:
        tally = readings.task_stats.tasks.get(pool.name)
        if tally is not None:
            for outcome in ("succeeded", "failed", "retried"):
                yield Sample(getattr(tally, outcome), {"pool": pool.name, "outcome": outcome})


def task_seconds(readings: Readings) -> Iterator[Sample]:
    """Yield the running times of tasks."""
    for pool in readings.settings.pools:
        for queue, tally in tallies_by_queue(readings, pool).items():
            labels = {"pool": pool.name, "queue": queue}
            for bound, count in zip((*SECONDS_BOUNDS, "+Inf"), accumulate(tally.counts), strict=True):
                yield Sample(count, {**labels, "le": str(bound)}, "_bucket")
            yield Sample(round(tally.seconds, 6), labels, "_sum")
            yield Sample(sum(tally.counts), labels, "_count")


def tallies_by_queue(readings: Readings, pool: Pool) -> dict[str, QueueTally]:
    """Return a pool's running times by its queues, from none on; those of other routing keys together."""
    tasks = readings.task_stats.tasks.get(pool.name)
    if tasks is None:
        return {}
    found = dict.fromkeys(pool.queues, NO_SECONDS)
    for key, tally in tasks.queues.items():
        queue = key if key in pool.queues else OTHER_QUEUES
        found[queue] = combine_queue(found.get(queue, NO_SECONDS), tally, 1)
    return found


def firing(readings: Readings) -> Iterator[Sample]:
    """Yield how many alerts of each kind stand."""
    for kind, count in readings.alerts_firing.items():
        yield Sample(count, {"alert": kind})
