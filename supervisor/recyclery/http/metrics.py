"""`/metrics`: every metric with its unit and meaning, and how it is read off one moment's readings.

docs/metrics.md says the same; a test compares the two. No label has more values than there are pools, their
queues, or names in this file.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import accumulate

import h11

from recyclery import __version__
from recyclery.alerts.monitor import Monitor
from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.browsers import Census, count_kinds
from recyclery.decide.budget import level_bytes
from recyclery.decide.policy_state import Counters
from recyclery.http.server import Handler, Response
from recyclery.http.status import read_cpu_seconds
from recyclery.observe.processes import read_pss
from recyclery.observe.queue_depths import read_depths
from recyclery.observe.snapshot import Child, PoolView, Snapshot
from recyclery.state.board import Board
from recyclery.state.task_stats import NO_SECONDS, TaskStats, combine_queue
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, now

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER_QUEUES = "other"
REASONS = ("budget", "max_tasks", "asked", "shrink", "preempt", "died", "replace", "hung")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is what a histogram's name has after it."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


def format_family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    """Return a family's lines; nothing where it has no sample now."""
    lines = [f"{name}{sample.suffix}{format_labels(sample.labels)} {sample.value!r}" for sample in samples]
    if not lines:
        return ""
    meaning = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return "\n".join([f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *lines, ""])


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels in braces; nothing where there are none."""
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels.items()) + "}"


def escape(value: str) -> str:
    """Return a label's value as it stands between quotes."""
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


@dataclass(frozen=True)
class Readings:
    """One moment. `at` is the boot's clock, as the snapshot's."""

    at: float
    settings: Settings
    snapshot: Snapshot
    census: Census
    counters: Counters
    task_stats: TaskStats
    depths: Mapping[str, int | None]
    """Tasks that wait for each pool; None where that is not known."""
    governor_bytes: int
    governor_cpu_seconds: float
    alerts_firing: Mapping[str, int]
    """How many alerts of each kind stand."""
    alerts_dropped: int
    """Messages that nobody took."""


async def read_now(board: Board, monitor: Monitor) -> Readings:
    """Gather; what asks others is done in a thread. Raises LookupError before the first look."""
    snapshot, settings = board.snapshot, board.settings
    if snapshot is None:
        raise LookupError("the governor has not looked yet")
    depths = await asyncio.to_thread(read_depths, settings.pools, snapshot, board.broker)
    governor_bytes = await asyncio.to_thread(read_pss, os.getpid())
    return Readings(
        at=now(),
        settings=settings,
        snapshot=snapshot,
        census=count_kinds(snapshot, board.ledger.state.silences, settings.browsers),
        counters=board.ledger.state.counters,
        task_stats=board.task_stats,
        depths=depths,
        governor_bytes=governor_bytes,
        governor_cpu_seconds=read_cpu_seconds(),
        alerts_firing=monitor.count_firing(),
        alerts_dropped=monitor.dropped,
    )


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
    return views.get(pool.name, PoolView(name=pool.name, state=PoolState.STOPPED, pid=None))


def is_up(readings: Readings, pool: Pool) -> int:
    """Return 1 where a pool's worker runs and answers, or drains."""
    return int(view_of(readings, pool).reported_state.is_up)


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


@dataclass(frozen=True)
class Metric:
    """One metric: its name and unit, counter, gauge or histogram, its labels, what it means, how it is read."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    read: Reader


def list_metrics_page(board: Board, monitor: Monitor) -> Mapping[str, Handler]:
    """Return the answer by its path."""

    async def metrics(_: h11.Request) -> Response:
        try:
            readings = await read_now(board, monitor)
        except LookupError as error:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        return Response(HTTPStatus.OK, render(readings), {"Content-Type": CONTENT_TYPE})

    return {"/metrics": metrics}


def render(readings: Readings) -> str:
    """Return all metrics as Prometheus reads them; one that is not known now is left out."""
    return "".join(
        format_family(metric.name, metric.kind, metric.meaning, metric.read(readings)) for metric in METRICS
    )


METRICS = (
    Metric("recyclery_build_info", "gauge", ("version",), "Always 1; the version is its label.",
           lambda _: [Sample(1, {"version": __version__})]),
    # The container.
    Metric("recyclery_container_memory_limit_bytes", "gauge", (), "The memory that there is in all.",
           one(lambda now: now.snapshot.container.limit_bytes)),
    Metric("recyclery_container_memory_usage_bytes", "gauge", (), "What the kernel charges the container.",
           one(lambda now: now.snapshot.container.usage_bytes)),
    Metric("recyclery_container_memory_working_set_bytes", "gauge", (), "Usage without inactive file pages.",
           one(lambda now: now.snapshot.container.working_set_bytes)),
    Metric("recyclery_container_memory_floor_bytes", "gauge", (),
           "What no reclaim can free; everything is decided on it.",
           one(lambda now: now.snapshot.container.floor_bytes)),
    Metric("recyclery_container_memory_unattributed_bytes", "gauge", (), "What of the floor no child holds.",
           one(unattributed)),
    Metric("recyclery_container_memory_level_bytes", "gauge", ("level",),
           "Floors at which the governor retires, holds (high) and preempts (hard).", levels),
    Metric("recyclery_container_memory_pressure_ratio", "gauge", (),
           "Share of the last 10 s in which something waited for memory.", one(pressure)),
    Metric("recyclery_container_cpu_ratio", "gauge", (), "Share of the CPU it may have that was used lately.",
           one(lambda now: now.snapshot.cpu_share)),
    Metric("recyclery_oom_kills_total", "counter", (), "Processes that the kernel killed for want of memory.",
           one(lambda now: now.snapshot.container.oom_kills)),
    # Pools.
    Metric("recyclery_pool_up", "gauge", ("pool",), "1 where the worker runs and answers, or drains.",
           each_pool(is_up)),
    Metric("recyclery_pool_queue_depth", "gauge", ("pool",), "Tasks that wait in all queues of the pool.",
           each_pool(lambda now, pool: now.depths.get(pool.name))),
    Metric("recyclery_pool_concurrency", "gauge", ("pool",), "Tasks that it runs at a time.",
           each_pool(lambda now, pool: view_of(now, pool).concurrency)),
    Metric("recyclery_pool_max_tasks_per_child", "gauge", ("pool",),
           "Tasks after which a child is replaced, as learned or set.",
           each_pool(lambda now, pool: view_of(now, pool).max_tasks_per_child)),
    Metric("recyclery_pool_holding", "gauge", ("pool",), "1 while it takes no tasks, to let memory come free.",
           each_pool(holding)),
    Metric("recyclery_pool_children", "gauge", ("pool",), "Living children.",
           each_pool(lambda now, pool: len(children_of(now, pool)))),
    Metric("recyclery_pool_children_busy", "gauge", ("pool",), "Children that run a task.",
           each_pool(lambda now, pool: sum(child.task_id is not None for child in children_of(now, pool)))),
    Metric("recyclery_pool_memory_bytes", "gauge", ("pool",), "What its children hold with all they started.",
           each_pool(lambda now, pool: sum(child.tree_bytes for child in children_of(now, pool)))),
    Metric("recyclery_pool_browser_memory_bytes", "gauge", ("pool",), "What of that browsers hold.",
           each_pool(browser_bytes)),
    Metric("recyclery_pool_largest_child_memory_bytes", "gauge", ("pool",), "What its largest child holds.",
           each_pool(lambda now, pool: max((c.tree_bytes for c in children_of(now, pool)), default=0))),
    Metric("recyclery_pool_main_memory_bytes", "gauge", ("pool",),
           "What its main processes hold: one, or two in a handoff.",
           each_pool(main_bytes)),
    Metric("recyclery_pool_restarts_total", "counter", ("pool",),
           "Starts of its worker that were no replacement: it died, or hung.",
           each_pool(lambda now, pool: now.task_stats.restarts.get(pool.name, 0))),
    Metric("recyclery_recycles_total", "counter", ("pool", "reason"),
           "Children that left, and (replace, hung) whole workers, by why.", recycles),
    # Tasks.
    Metric("recyclery_tasks_total", "counter", ("pool", "outcome"),
           "Tasks that succeeded, failed, or asked to be retried.", tasks),
    Metric("recyclery_task_seconds", "histogram", ("pool", "queue"), "How long tasks ran in their child.",
           task_seconds),
    Metric("recyclery_tasks_reclaimed_total", "counter", (), "Tasks of dead workers given back to queues.",
           one(lambda now: now.counters.reclaimed)),
    Metric("recyclery_tasks_parked", "gauge", (), "Tasks set aside for a person to decide on.",
           one(lambda now: now.counters.parked)),
    # Browsers.
    Metric("recyclery_browsers", "gauge", ("kind",), "Browsers now.", browsers),
    Metric("recyclery_browser_processes_defunct", "gauge", (), "Browser processes ended and not collected.",
           one(lambda now: now.snapshot.defunct)),
    Metric("recyclery_browsers_reaped_total", "counter", (), "Browsers that the governor killed.",
           one(lambda now: now.counters.reaped)),
    Metric("recyclery_grid_sessions_ended_total", "counter", (), "Sessions on a Grid that the governor ended.",
           one(lambda now: now.counters.grid_ended)),
    # The governor itself.
    Metric("recyclery_governor_memory_bytes", "gauge", (), "What the governor holds (PSS).",
           one(lambda now: now.governor_bytes)),
    Metric("recyclery_governor_cpu_seconds_total", "counter", (), "CPU time that the governor has used.",
           one(lambda now: now.governor_cpu_seconds)),
    Metric("recyclery_governor_look_age_seconds", "gauge", (), "How old the look is that all this is from.",
           one(lambda now: round(max(0.0, now.at - now.snapshot.at), 3))),
    Metric("recyclery_alerts_firing", "gauge", ("alert",), "Alerts that stand, of those it sends by itself.",
           firing),
    Metric("recyclery_alerts_dropped_total", "counter", (), "Messages on alerts that nobody took.",
           one(lambda now: now.alerts_dropped)),
)  # fmt: skip
