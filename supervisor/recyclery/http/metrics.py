"""`/metrics`: the name, type, labels and help text of every metric, and how its value is computed.

docs/metrics.md has the same table; a test compares the two. Label values are pools, their queues, or constants
of this file, so that their number is bounded.
"""

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
from recyclery.config.settings import Pool
from recyclery.decide.browsers import count_by_kind
from recyclery.decide.memory_levels import find_active_worker, level_bytes
from recyclery.http.server import GetHandler, Response
from recyclery.http.status import read_cpu_seconds
from recyclery.observe.processes import read_pss
from recyclery.observe.queue_depths import read_depths
from recyclery.observe.snapshot import Child, PoolView, Snapshot
from recyclery.state.board import Board
from recyclery.state.task_stats import NO_SECONDS, combine_queue
from recyclery_worker.link import SECONDS_BOUNDS, now

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OTHER_ROUTING_KEYS = "other"
REASONS = ("budget", "max_tasks", "asked", "shrink", "preempt", "died", "replace", "hung")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value; `suffix` is appended to the name of a histogram."""

    value: float
    labels: Mapping[str, str] = field(default_factory=dict)
    suffix: str = ""


@dataclass(frozen=True)
class Readings:
    """All that is read for one response. `at` is a time of CLOCK_BOOTTIME, as in the snapshot."""

    at: float
    board: Board
    snapshot: Snapshot
    depths: Mapping[str, int | None]
    """Waiting tasks by pool; None if not known."""
    governor_bytes: int
    alerts_firing: Mapping[str, int]
    """Firing alerts by kind."""
    alerts_dropped: int
    """Alert messages that could not be delivered."""

    def view(self, pool: Pool) -> PoolView:
        stopped = PoolView(name=pool.name, state=PoolState.STOPPED, pid=None)
        return find_active_worker(self.snapshot, pool.name) or stopped

    def children(self, pool: Pool) -> list[Child]:
        """Return a pool's children, those of a draining worker included."""
        return [child for child in self.snapshot.children if child.owner.pool == pool.name]


@dataclass(frozen=True)
class Family:
    """One metric family: name with unit, type, labels, help text, and the function that returns its samples."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str
    read: Callable[[Readings], Iterable[Sample]]


def list_metrics_page(board: Board, monitor: Monitor) -> Mapping[str, GetHandler]:
    async def metrics(_: h11.Request) -> Response:
        if board.snapshot is None:
            return Response(HTTPStatus.SERVICE_UNAVAILABLE, "the governor has not taken a snapshot yet\n")
        readings = await read_now(board, board.snapshot, monitor)
        return Response(HTTPStatus.OK, render(readings), {"Content-Type": CONTENT_TYPE})

    return {"/metrics": metrics}


async def read_now(board: Board, snapshot: Snapshot, monitor: Monitor) -> Readings:
    """Collect the readings; what may block is read in a thread."""
    depths = await asyncio.to_thread(read_depths, board.settings.pools, snapshot, board.broker)
    governor_bytes = await asyncio.to_thread(read_pss, os.getpid())
    return Readings(
        at=now(),
        board=board,
        snapshot=snapshot,
        depths=depths,
        governor_bytes=governor_bytes,
        alerts_firing=monitor.count_firing(),
        alerts_dropped=monitor.dropped,
    )


def render(readings: Readings) -> str:
    """Return all metrics in Prometheus' text format; those that are not known now are left out."""
    return "".join(format_family(each.name, each.kind, each.meaning, each.read(readings)) for each in METRICS)


def format_family(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> str:
    """Return a metric's lines; empty without a sample."""
    lines = [f"{name}{sample.suffix}{format_labels(sample.labels)} {sample.value!r}" for sample in samples]
    meaning = meaning.replace("\\", r"\\").replace("\n", r"\n")
    return "\n".join([f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *lines, ""]) if lines else ""


def format_labels(labels: Mapping[str, str]) -> str:
    """Return labels in braces; empty without any."""

    def escape(value: str) -> str:
        return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

    return "{" + ",".join(f'{name}="{escape(value)}"' for name, value in labels.items()) + "}" if labels else ""


def one(read: Callable[[Readings], float | None]) -> Callable[[Readings], Iterable[Sample]]:
    """Return a reader of one value without labels; None if not known."""
    return lambda readings: [Sample(value)] if (value := read(readings)) is not None else []


def each_pool(read: Callable[[Readings, Pool], float | None]) -> Callable[[Readings], Iterable[Sample]]:
    """Return a reader of one value per pool; None if not known."""
    return lambda readings: [
        Sample(value, {"pool": pool.name})
        for pool in readings.board.settings.pools
        if (value := read(readings, pool)) is not None
    ]


def each(label: str, read: Callable[[Readings], Mapping[str, float]]) -> Callable[[Readings], Iterable[Sample]]:
    """Return a reader of one value per value of a label."""
    return lambda readings: [Sample(value, {label: name}) for name, value in read(readings).items()]


def pressure_ratio(readings: Readings) -> float | None:
    """Return the PSI value as a ratio."""
    percent = readings.snapshot.container.pressure_percent
    return None if percent is None else percent / 100


def levels(readings: Readings) -> dict[str, float]:
    """Return the levels in bytes."""
    memory = readings.board.settings.memory
    percents = {"retire": memory.retire_percent, "high": memory.high_percent, "hard": memory.hard_percent}
    return {name: level_bytes(readings.snapshot, percent) for name, percent in percents.items()}


def is_paused(readings: Readings, pool: Pool) -> int | None:
    holding = readings.view(pool).holding
    return None if holding is None else int(holding)


def browser_memory(readings: Readings, pool: Pool) -> int:
    processes = (process for child in readings.children(pool) for process in child.processes)
    held = sum(process.anon_bytes for process in processes if process.is_browser)
    return readings.snapshot.told_bytes(held)


def told_bytes(readings: Readings, pool: Pool) -> list[int]:
    return [readings.snapshot.told_bytes(child.own_bytes) for child in readings.children(pool)]


def main_memory(readings: Readings, pool: Pool) -> int:
    views = (view for view in readings.snapshot.workers if view.name == pool.name)
    return readings.snapshot.told_bytes(sum(view.main_bytes for view in views))


def recycles(readings: Readings) -> Iterator[Sample]:
    """Yield recycles by reason, beginning at 0: Prometheus sees no increase in a counter that begins at 1."""
    for pool in readings.board.settings.pools:
        counted = readings.board.ledger.state.counters.recycles.get(pool.name, {})
        for reason, count in {**dict.fromkeys(REASONS, 0), **counted}.items():
            yield Sample(count, {"pool": pool.name, "reason": reason})


def browsers(readings: Readings) -> dict[str, float]:
    """Return the number of browsers by kind; each has one kind."""
    state, settings = readings.board.ledger.state, readings.board.settings
    census = count_by_kind(readings.snapshot, state.stalls, settings.browsers)
    return {
        "in_use": census.in_use - census.kept,
        "kept": census.kept,
        "leftover": census.leftovers,
        "runaway": census.runaway,
        "orphan": census.orphans,
        "stranger": census.strangers,
    }


def tasks(readings: Readings) -> Iterator[Sample]:
    for pool in readings.board.settings.pools:
        if tally := readings.board.task_stats.tasks.get(pool.name):
            for outcome in ("succeeded", "failed", "retried"):
                yield Sample(getattr(tally, outcome), {"pool": pool.name, "outcome": outcome})


def task_seconds(readings: Readings) -> Iterator[Sample]:
    """Yield the histograms of running times by queue; other routing keys count together."""
    for pool in readings.board.settings.pools:
        if (stats := readings.board.task_stats.tasks.get(pool.name)) is None:
            continue
        queues = dict.fromkeys(pool.queues, NO_SECONDS)
        for key, tally in stats.queues.items():
            queue = key if key in pool.queues else OTHER_ROUTING_KEYS
            queues[queue] = combine_queue(queues.get(queue, NO_SECONDS), tally, 1)
        for queue, tally in queues.items():
            labels = {"pool": pool.name, "queue": queue}
            for bound, count in zip((*SECONDS_BOUNDS, "+Inf"), accumulate(tally.counts), strict=True):
                yield Sample(count, {**labels, "le": str(bound)}, "_bucket")
            yield Sample(round(tally.seconds, 6), labels, "_sum")
            yield Sample(sum(tally.counts), labels, "_count")


METRICS = (
    Family("recyclery_build_info", "gauge", ("version",), "Always 1; the version is its label.",
           lambda _: [Sample(1, {"version": __version__})]),
    # The container.
    Family("recyclery_container_memory_limit_bytes", "gauge", (), "Memory limit of the container.",
           one(lambda now: now.snapshot.container.limit_bytes)),
    Family("recyclery_container_memory_usage_bytes", "gauge", (),
           "Memory usage of the container, page cache included.",
           one(lambda now: now.snapshot.container.usage_bytes)),
    Family("recyclery_container_memory_working_set_bytes", "gauge", (),
           "Memory usage without inactive page cache.",
           one(lambda now: now.snapshot.container.working_set_bytes)),
    Family("recyclery_container_memory_floor_bytes", "gauge", (),
           "Unreclaimable memory (the floor), on which all decisions are based.",
           one(lambda now: now.snapshot.container.floor_bytes)),
    Family("recyclery_container_memory_unattributed_bytes", "gauge", (),
           "Unreclaimable memory that neither children nor main processes hold.",
           one(lambda now: now.snapshot.unattributed_bytes)),
    Family("recyclery_container_memory_level_bytes", "gauge", ("level",),
           "Levels of unreclaimable memory: retire children, pause consuming (high), preempt tasks (hard).",
           each("level", levels)),
    Family("recyclery_container_memory_pressure_ratio", "gauge", (),
           "Share of the last 10 s in which a process stalled on memory (PSI).", one(pressure_ratio)),
    Family("recyclery_container_cpu_ratio", "gauge", (), "Recent CPU usage as a share of the CPU limit.",
           one(lambda now: now.snapshot.cpu_share)),
    Family("recyclery_oom_kills_total", "counter", (), "Processes killed by the kernel OOM killer.",
           one(lambda now: now.snapshot.container.oom_kills)),
    # Pools.
    Family("recyclery_pool_up", "gauge", ("pool",), "1 if the worker is running or draining.",
           each_pool(lambda now, pool: int(now.view(pool).reported_state.is_up))),
    Family("recyclery_pool_queue_depth", "gauge", ("pool",), "Waiting tasks in all queues of the pool.",
           each_pool(lambda now, pool: now.depths.get(pool.name))),
    Family("recyclery_pool_concurrency", "gauge", ("pool",), "Tasks that the pool can run at the same time.",
           each_pool(lambda now, pool: now.view(pool).concurrency)),
    Family("recyclery_pool_max_tasks_per_child", "gauge", ("pool",),
           "Tasks after which a child is replaced, as learned or set.",
           each_pool(lambda now, pool: now.view(pool).max_tasks_per_child)),
    Family("recyclery_pool_holding", "gauge", ("pool",), "1 while consuming is paused to free memory.",
           each_pool(is_paused)),
    Family("recyclery_pool_children", "gauge", ("pool",), "Children of the pool.",
           each_pool(lambda now, pool: len(now.children(pool)))),
    Family("recyclery_pool_children_busy", "gauge", ("pool",), "Children that are running a task.",
           each_pool(lambda now, pool: sum(child.task_id is not None for child in now.children(pool)))),
    Family("recyclery_pool_memory_bytes", "gauge", ("pool",),
           "Memory of the children and all processes that they started.",
           each_pool(lambda now, pool: sum(told_bytes(now, pool)))),
    Family("recyclery_pool_browser_memory_bytes", "gauge", ("pool",), "Memory of the children's browsers.",
           each_pool(browser_memory)),
    Family("recyclery_pool_largest_child_memory_bytes", "gauge", ("pool",), "Memory of the largest child.",
           each_pool(lambda now, pool: max(told_bytes(now, pool), default=0))),
    Family("recyclery_pool_main_memory_bytes", "gauge", ("pool",),
           "Memory of the main process, or of both during a rolling replacement.",
           each_pool(main_memory)),
    Family("recyclery_pool_restarts_total", "counter", ("pool",),
           "Worker restarts after a crash or a hang, replacements not included.",
           each_pool(lambda now, pool: now.board.task_stats.restarts.get(pool.name, 0))),
    Family("recyclery_recycles_total", "counter", ("pool", "reason"),
           "Recycled children and, with the reasons replace and hung, whole workers.", recycles),
    # Tasks.
    Family("recyclery_tasks_total", "counter", ("pool", "outcome"),
           "Tasks that succeeded, failed, or were retried.", tasks),
    Family("recyclery_task_seconds", "histogram", ("pool", "queue"), "Running time of tasks in their child.",
           task_seconds),
    Family("recyclery_tasks_reclaimed_total", "counter", (), "Tasks of dead workers returned to their queues.",
           one(lambda now: now.board.ledger.state.counters.reclaimed)),
    Family("recyclery_tasks_parked", "gauge", (), "Parked tasks that wait for a decision.",
           one(lambda now: now.board.ledger.state.counters.parked)),
    # Browsers.
    Family("recyclery_browsers", "gauge", ("kind",), "Browsers by kind.", each("kind", browsers)),
    Family("recyclery_browser_processes_defunct", "gauge", (), "Zombie browser processes.",
           one(lambda now: now.snapshot.defunct)),
    Family("recyclery_browsers_reaped_total", "counter", (), "Browsers killed by the governor.",
           one(lambda now: now.board.ledger.state.counters.reaped)),
    Family("recyclery_grid_sessions_ended_total", "counter", (),
           "Selenium Grid sessions that the governor ended.",
           one(lambda now: now.board.ledger.state.counters.grid_ended)),
    # The governor itself.
    Family("recyclery_governor_memory_bytes", "gauge", (), "Memory of the governor (PSS).",
           one(lambda now: now.governor_bytes)),
    Family("recyclery_governor_cpu_seconds_total", "counter", (), "CPU time used by the governor.",
           one(lambda _: read_cpu_seconds())),
    Family("recyclery_governor_look_age_seconds", "gauge", (), "Age of the snapshot behind these values.",
           one(lambda now: round(max(0.0, now.at - now.snapshot.at), 3))),
    Family("recyclery_alerts_firing", "gauge", ("alert",), "Firing alerts by kind, of those that are sent.",
           each("alert", lambda now: now.alerts_firing)),
    Family("recyclery_alerts_dropped_total", "counter", (), "Alert messages that could not be delivered.",
           one(lambda now: now.alerts_dropped)),
)  # fmt: skip
