"""`/metrics`: every metric with its unit and meaning, and how it is read off one moment's readings.

docs/metrics.md says the same; a test compares the two. No label has more values than there are pools, their
queues, or names in this file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

import h11

from recyclery import __version__
from recyclery.alerts.monitor import Monitor
from recyclery.serve.exposition import CONTENT_TYPE, Sample, format_family
from recyclery.serve.figures import (
    Reader,
    browser_bytes,
    browsers,
    children_of,
    each_pool,
    firing,
    holding,
    is_up,
    levels,
    main_bytes,
    one,
    pressure,
    recycles,
    task_seconds,
    tasks,
    unattributed,
    view_of,
)
from recyclery.serve.http import Answer, Handler
from recyclery.serve.readings import Readings, read_now
from recyclery.state.board import Board


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

    async def metrics(_: h11.Request) -> Answer:
        try:
            readings = await read_now(board, monitor)
        except LookupError as error:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, f"{error}\n")
        return Answer(HTTPStatus.OK, render(readings), {"Content-Type": CONTENT_TYPE})

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
