"""Builds the status document from the last snapshot; reads PSS and queue depths, so not on the loop."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

from recyclery.config.settings import Browsers, Pool, Settings
from recyclery.counters import Counters
from recyclery.decide.browsers import count_kinds
from recyclery.decide.handoff import find_successor
from recyclery.ledger import Ledger
from recyclery.observe.broker import Broker
from recyclery.observe.depths import read_depths
from recyclery.observe.processes import read_pss
from recyclery.observe.snapshot import Child, PoolView, Snapshot
from recyclery.serve.status import (
    BrowserStatus,
    ChildStatus,
    ContainerStatus,
    GovernorStatus,
    PoolStatus,
    Status,
    TaskStatus,
    WorkerStatus,
)
from recyclery_worker.link import WorkerStat


def build_status(
    settings: Settings,
    snapshot: Snapshot,
    stats: Mapping[str, WorkerStat],
    ledger: Ledger,
    broker: Broker,
) -> Status:
    """Return the whole document."""
    views = {view.name: view for view in snapshot.pools}
    depths = read_depths(settings.pools, snapshot, broker)
    container = snapshot.container
    held = sum(child.tree_bytes for child in snapshot.children)
    return Status(
        container=ContainerStatus(
            limit_bytes=container.limit_bytes,
            usage_bytes=container.usage_bytes,
            working_set_bytes=container.working_set_bytes,
            floor_bytes=container.floor_bytes,
            unattributed_bytes=max(0, container.floor_bytes - held),
            oom_kills=container.oom_kills,
            source=container.source,
        ),
        pools={
            pool.name: build_pool(
                pool=pool,
                view=views.get(pool.name),
                stats=stats,
                snapshot=snapshot,
                counters=ledger.counters,
                depth=depths.get(pool.name),
            )
            for pool in settings.pools
        },
        browsers=build_browsers(snapshot, ledger, settings.browsers),
        tasks=TaskStatus(reclaimed=ledger.counters.reclaimed, parked=ledger.counters.parked),
        governor=read_governor(),
    )


def build_pool(
    *,
    pool: Pool,
    view: PoolView | None,
    stats: Mapping[str, WorkerStat],
    snapshot: Snapshot,
    counters: Counters,
    depth: int | None,
) -> PoolStatus:
    """Return one pool's part."""
    stat = stats.get(view.slot) if view is not None else None
    successor = find_successor(view, snapshot) if view is not None else None
    beside = [other for other in snapshot.others if other.name == pool.name and other is not successor]
    return PoolStatus(
        state=view.state if view else "stopped",
        node=stat.node if stat else None,
        pid=view.pid if view else None,
        queues=list(pool.queues),
        concurrency=stat.concurrency if stat else pool.concurrency,
        max_tasks_per_child=(stat.max_tasks_per_child if stat else None) or pool.max_tasks_per_child,
        children=[
            build_child(child, snapshot.at) for child in snapshot.children if child.owner.pool == pool.name
        ],
        recycles=dict(counters.recycles.get(pool.name, {})),
        queue_depth=depth,
        slot=view.slot if view else pool.name,
        successor=build_worker(successor, snapshot) if successor is not None else None,
        draining=[build_worker(other, snapshot) for other in beside],
    )


def build_worker(view: PoolView, snapshot: Snapshot) -> WorkerStatus:
    """Return the part of a worker beside the one that serves its pool."""
    place = view.name, view.slot
    return WorkerStatus(
        slot=view.slot,
        node=view.node,
        pid=view.pid,
        tasks=[
            child.task_name or ""
            for child in snapshot.children
            if (child.owner.pool, child.slot) == place and child.task_id is not None
        ],
    )


def build_child(child: Child, at: float) -> ChildStatus:
    """Return one child's part."""
    started = next(process.started for process in child.processes if process.pid == child.owner.pid)
    python = browser = other = 0
    for process in child.processes:
        pss = read_pss(process.pid)
        if process.pid == child.owner.pid:
            python += pss
        elif process.is_browser:
            browser += pss
        else:
            other += pss
    return ChildStatus(
        pid=child.owner.pid,
        tasks_done=child.tasks_done,
        pss_bytes=python + browser + other,
        age_seconds=round(at - started, 1),
        task=child.task_name,
        python_bytes=python,
        browser_bytes=browser,
        other_bytes=other,
    )


def build_browsers(snapshot: Snapshot, ledger: Ledger, settings: Browsers) -> BrowserStatus:
    """Count browsers by kind, and what is defunct."""
    census = count_kinds(snapshot, ledger.silences, settings)
    return BrowserStatus(
        live=census.live,
        orphans=census.orphans,
        defunct=snapshot.defunct,
        reaped=ledger.counters.reaped,
        in_use=census.in_use,
        kept=census.kept,
        leftovers=census.leftovers,
        runaway=census.runaway,
        strangers=census.strangers,
        grid_ended=ledger.counters.grid_ended,
    )


def read_governor() -> GovernorStatus:
    """Return what this very process costs."""
    return GovernorStatus(pss_bytes=read_pss(os.getpid()), cpu_seconds=read_cpu_seconds())


def read_cpu_seconds() -> float:
    """Return the CPU time that this very process has used."""
    times = psutil.Process().cpu_times()
    return round(times.user + times.system, 2)
