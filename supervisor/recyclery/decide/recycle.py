"""Rungs 2 and 4: children past their budget are let go, and workers that no retirement helps are replaced."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import Dismiss, ReplaceWorker, Retire
from recyclery.decide.budget import (
    active_children,
    child_budget,
    find_view,
    find_worker,
    format_count,
    is_leaving,
    level_bytes,
    mib,
    reclaimable_bytes,
)
from recyclery.decide.max_tasks import MIN_RECLAIMABLE_BYTES, must_retire
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import Child, PoolView, Snapshot

RETIRE_AGAIN_SECONDS = 10.0
REPLACE_AGAIN_SECONDS = 60.0
# A worker that lets none of its children go when asked so often is replaced.
MAX_REFUSALS = 3
# Where even a fresh child is past its budget, a recycle must free so much of the limit.
TIGHT_GAIN_PERCENT = 10
# A main process is replaced for its own growth only when that is worth a worker's start.
MIN_MAIN_GROWTH_PERCENT = 10


def recycle_children(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> Retire | ReplaceWorker | None:
    """Let the child go that a fresh one in its place would save most, or replace its worker.

    Only when everything at its height would pass the retire level; and when the child that would save most has
    a task, not another one in its place: it waits until that is done.
    """
    pools = {pool.name: pool for pool in settings.pools}
    children = [
        child for pool in pools for child in active_children(snapshot, pool) if not is_leaving(child, snapshot)
    ]
    if not children:
        return None
    worst = max(children, key=lambda child: reclaimable_bytes(child, state))
    pool = pools[worst.owner.pool]
    reason = past_budget(worst, snapshot, state, settings, pool)
    if reason is None:
        return None
    view = find_view(snapshot, pool.name)
    if view is None or (view.retires and state.refused.get(view.name, 0) < MAX_REFUSALS):
        if is_recent(state.retired.get(worst.owner), snapshot.at, RETIRE_AGAIN_SECONDS):
            return None
        return Retire(owner=worst.owner, reason=reason)
    if not can_replace(view, state, snapshot.at):
        return None
    return ReplaceWorker(pool=view.name, reason=f"child {worst.owner.pid}: {reason}")


def past_budget(
    child: Child, snapshot: Snapshot, state: PolicyState, settings: Settings, pool: Pool
) -> str | None:
    """Say why the next task would take a child past its budget; None when it would not."""
    model = state.models.get(pool.name)
    # A running task's own memory is not what a recycle frees: judge by what stays, before it or after.
    if model is None or child.task_id is not None or (pool.forks and child.tasks_done == 0):
        return None
    budget = child_budget(child, snapshot, state, settings)
    fresh, tail = int(model.fresh_child_bytes or 0), state.headroom_bytes(pool.name)
    least = MIN_RECLAIMABLE_BYTES
    if fresh + tail > budget:
        # A successor would be past it too: only what makes a difference to the container is worth a fork.
        least = max(least, level_bytes(snapshot, TIGHT_GAIN_PERCENT))
    if must_retire(model, child.tree_bytes, budget, tail, least) is None:
        return None
    return (
        f"{mib(child.tree_bytes)} after {format_count(child.tasks_done, 'task')}, a fresh one has {mib(fresh)}; "
        f"with {mib(tail)} for the next task{largest_task(model)} it passes the {mib(max(0, budget))} "
        "that all else at its height leaves"
    )


def largest_task(model: PoolModel) -> str:
    """Name the task that needs most, in brackets; nothing where no name is known."""
    named = {name: cost.largest_tail_bytes for name, cost in model.tasks.items() if name}
    return f" ({max(named, key=lambda name: named[name])})" if named else ""


def replace_grown_main(snapshot: Snapshot, state: PolicyState, settings: Settings) -> ReplaceWorker | None:
    """The worker whose main process has grown most since its start, where memory is short and that is why."""
    if snapshot.container.floor_bytes < level_bytes(snapshot, settings.memory.retire_percent):
        return None
    least = level_bytes(snapshot, MIN_MAIN_GROWTH_PERCENT)
    grown = [
        view
        for view in snapshot.pools
        if view.main_bytes - view.main_start_bytes >= least and can_replace(view, state, snapshot.at)
    ]
    if not grown:
        return None
    worst = max(grown, key=lambda view: view.main_bytes - view.main_start_bytes)
    return ReplaceWorker(
        pool=worst.name,
        reason=(
            f"its main process grew from {mib(worst.main_start_bytes)} to {mib(worst.main_bytes)}, "
            "which no child's recycle frees"
        ),
    )


def can_replace(view: PoolView, state: PolicyState, at: float) -> bool:
    """Tell whether a worker runs and was not replaced just now."""
    return view.state is PoolState.RUNNING and not is_recent(
        state.replaced.get(view.name), at, REPLACE_AGAIN_SECONDS
    )


DISMISS_AGAIN_SECONDS = 10.0


def dismiss_traced(snapshot: Snapshot, state: PolicyState) -> Iterator[Dismiss]:
    """Let each child go whose tracing is over, or was given up."""
    for child in snapshot.children:
        view = find_worker(snapshot, child)
        if child.tracing != "over" or view is None or child.owner.pid in view.leaving:
            continue
        if not is_recent(state.dismissed.get(child.owner), snapshot.at, DISMISS_AGAIN_SECONDS):
            yield Dismiss(owner=child.owner, slot=view.slot, reason="it has traced allocations")
