"""Builds the status document from the last snapshot, in a thread, as reading PSS and queue depths may block."""

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict

import psutil

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool
from recyclery.control.status_schema import (
    BrowserStatus,
    ChildStatus,
    ContainerStatus,
    Event,
    GovernorStatus,
    PoolStatus,
    Status,
    TaskStatus,
    WorkerStatus,
)
from recyclery.decide.browsers import count_by_kind
from recyclery.decide.memory_levels import find_active_worker, level_bytes
from recyclery.decide.replace import find_successor
from recyclery.observe.processes import read_pss
from recyclery.observe.queue_depths import read_depths
from recyclery.observe.snapshot import Child, PoolView, Snapshot
from recyclery.state.board import Board

FIRST_SNAPSHOT_SECONDS = 0.1
# Returns a process's PSS by its pid.
ReadPss = Callable[[int], int]


def leave_unread(_: int) -> int:
    """Return 0 as a process's PSS: reading it takes the kernel 2 ms for each process of a browser."""
    return 0


async def read_status(board: Board, pss_of: ReadPss = read_pss) -> Status:
    """Return the status, or with `leave_unread` a quick one. Waits for the first snapshot."""
    while board.snapshot is None:
        await asyncio.sleep(FIRST_SNAPSHOT_SECONDS)
    return await asyncio.to_thread(build_status, board, board.snapshot, pss_of)


def build_status(board: Board, snapshot: Snapshot, pss_of: ReadPss) -> Status:
    settings, state, container = board.settings, board.ledger.state, snapshot.container
    depths = read_depths(settings.pools, snapshot, board.broker)
    return Status(
        container=ContainerStatus(
            limit_bytes=container.limit_bytes,
            usage_bytes=container.usage_bytes,
            working_set_bytes=container.working_set_bytes,
            floor_bytes=container.floor_bytes,
            unattributed_bytes=snapshot.unattributed_bytes,
            oom_kills=container.oom_kills,
            source=container.source,
            retire_bytes=level_bytes(snapshot, settings.memory.retire_percent),
            high_bytes=level_bytes(snapshot, settings.memory.high_percent),
            hard_bytes=level_bytes(snapshot, settings.memory.hard_percent),
        ),
        pools={
            pool.name: build_pool(pool, board, snapshot, depths.get(pool.name), pss_of)
            for pool in settings.pools
        },
        browsers=BrowserStatus(
            **asdict(count_by_kind(snapshot, state.stalls, settings.browsers)),
            defunct=snapshot.defunct,
            reaped=state.counters.reaped,
            grid_ended=state.counters.grid_ended,
        ),
        tasks=TaskStatus(reclaimed=state.counters.reclaimed, parked=state.counters.parked),
        governor=GovernorStatus(pss_bytes=pss_of(os.getpid()), cpu_seconds=read_cpu_seconds()),
        recent=[
            Event(round(max(0.0, snapshot.at - event.at), 1), event.text, event.done)
            for event in board.events.newest_first()
        ],
    )


def build_pool(pool: Pool, board: Board, snapshot: Snapshot, depth: int | None, pss_of: ReadPss) -> PoolStatus:
    view = find_active_worker(snapshot, pool.name)
    stat = board.worker_stats.get(view.slot) if view is not None else None
    successor = find_successor(view, snapshot) if view is not None else None
    return PoolStatus(
        state=view.state if view else PoolState.STOPPED,
        node=stat.node if stat else None,
        pid=view.pid if view else None,
        queues=list(pool.queues),
        concurrency=stat.concurrency if stat else pool.concurrency,
        max_tasks_per_child=(stat.max_tasks_per_child if stat else None) or pool.max_tasks_per_child,
        children=[
            build_child(child, snapshot, pss_of) for child in snapshot.children if child.owner.pool == pool.name
        ],
        recycles=dict(board.ledger.state.counters.recycles.get(pool.name, {})),
        queue_depth=depth,
        slot=view.slot if view else pool.name,
        successor=build_worker(successor, snapshot) if successor is not None else None,
        draining=[
            build_worker(other, snapshot)
            for other in snapshot.others
            if other.name == pool.name and other is not successor
        ],
        holding=bool(view and view.holding),
    )


def build_worker(view: PoolView, snapshot: Snapshot) -> WorkerStatus:
    """Return the part of a worker that starts or drains while another one serves its pool."""
    return WorkerStatus(
        slot=view.slot,
        node=view.node,
        pid=view.pid,
        tasks=[
            child.task_name or ""
            for child in snapshot.children
            if (child.owner.pool, child.slot) == (view.name, view.slot) and child.task_id is not None
        ],
    )


def build_child(child: Child, snapshot: Snapshot, pss_of: ReadPss) -> ChildStatus:
    at = snapshot.at
    started = next(process.started for process in child.processes if process.pid == child.owner.pid)
    python = browser = other = 0
    for process in child.processes:
        pss = pss_of(process.pid)
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
        tree_bytes=snapshot.told_bytes(child.own_bytes),
        tree_browser_bytes=snapshot.told_bytes(
            sum(process.anon_bytes for process in child.processes if process.is_browser)
        ),
        task_seconds=round(max(0.0, at - child.task_started), 1) if child.task_started is not None else None,
    )


def read_cpu_seconds() -> float:
    times = psutil.Process().cpu_times()
    return round(times.user + times.system, 2)
