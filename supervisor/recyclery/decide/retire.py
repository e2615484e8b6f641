"""Rungs 2 and 4: retire the child whose recycle frees most, or replace its worker.

Retire: a child's memory and its next task's headroom pass its budget (`memory_levels.child_budget`), and it is
    at least MIN_RECLAIMABLE_BYTES larger than a fresh one. One per tick, each child every RETIRE_AGAIN_SECONDS.
    Costs a fork.
ReplaceWorker: the same, where the worker cannot retire single children or refused MAX_REFUSALS times; or memory
    is above `retire_percent` and a main process grew by MIN_MAIN_GROWTH_PERCENT of the limit. Each worker every
    REPLACE_AGAIN_SECONDS. Costs a worker's start.
Dismiss: a child has traced allocations, so it is slower and larger than its siblings. Costs a fork.

Setting: `retire_percent`, the level that memory must not pass.
"""

from collections.abc import Iterator

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import ReplaceWorker, RetireChild, RetireTraced
from recyclery.decide.max_tasks import MIN_RECLAIMABLE_BYTES, must_retire
from recyclery.decide.memory_levels import (
    active_children,
    child_budget,
    find_active_worker,
    find_worker,
    format_count,
    idle_tree_bytes,
    is_leaving,
    level_bytes,
    reclaimable_bytes,
)
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import Child, PoolView, Snapshot

RETIRE_AGAIN_SECONDS = 10.0
REPLACE_AGAIN_SECONDS = 60.0
DISMISS_AGAIN_SECONDS = 10.0
MAX_REFUSALS = 3
# Where even a fresh child is past its budget, a recycle must free this share of the limit.
MIN_GAIN_PERCENT = 10
MIN_MAIN_GROWTH_PERCENT = 10


def recycle_children(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> RetireChild | ReplaceWorker | None:
    """Return the recycle of the child that frees most, if that child is past its budget.

    If it is busy, no other child is recycled in its place: it comes first when its task ends.
    """
    pools = {pool.name: pool for pool in settings.pools}
    children = [
        child for pool in pools for child in active_children(snapshot, pool) if not is_leaving(child, snapshot)
    ]
    if not children:
        return None
    worst = max(children, key=lambda child: reclaimable_bytes(child, state))
    reason = past_budget(worst, snapshot, state, settings, pools[worst.owner.pool])
    if reason is None:
        return None
    view = find_active_worker(snapshot, worst.owner.pool)
    if view is None or (view.retires and state.refused.get(view.name, 0) < MAX_REFUSALS):
        is_asked = is_recent(state.retired.get(worst.owner), snapshot.at, RETIRE_AGAIN_SECONDS)
        return None if is_asked else RetireChild(worst.owner, reason)
    reason = f"child {worst.owner.pid}: {reason}"
    return ReplaceWorker(view.name, reason) if can_replace(view, state, snapshot.at) else None


def past_budget(
    child: Child, snapshot: Snapshot, state: PolicyState, settings: Settings, pool: Pool
) -> str | None:
    """Return why the next task would take a child past its budget; None where it would not."""
    model = state.models.get(pool.name)
    if model is None or (pool.forks and child.tasks_done == 0):
        return None
    # A recycle frees none of a running task's own memory, so a busy child is waited for. Not so where it holds
    # files: they are not in its reports, from which the number of its tasks is learned.
    if child.task_id is not None and not child.file_bytes:
        return None
    held = idle_tree_bytes(child)
    budget = child_budget(child, snapshot, state, settings)
    fresh, headroom = state.fresh_child_bytes(pool.name), state.headroom_bytes(pool.name)
    gain = level_bytes(snapshot, MIN_GAIN_PERCENT) if fresh + headroom > budget else 0
    least = max(MIN_RECLAIMABLE_BYTES, gain)
    if must_retire(model, held, budget, headroom, least) is None:
        return None
    largest = max(model.tasks, key=lambda name: (bool(name), model.tasks[name].largest_tail_bytes), default="")
    task = f" ({largest})" if largest else ""
    tasks = format_count(child.tasks_done, "task")
    return (
        f"{format_mib(held)} after {tasks}, a fresh one has {format_mib(fresh)}; "
        f"with {format_mib(headroom)} for the next task{task} it passes the {format_mib(max(0, budget))} "
        "that all else at its height leaves"
    )


def replace_grown_main(snapshot: Snapshot, state: PolicyState, settings: Settings) -> ReplaceWorker | None:
    """Return the replacement of the worker whose main process has grown most, where memory is short."""
    if snapshot.container.floor_bytes < level_bytes(snapshot, settings.memory.retire_percent):
        return None
    grown = [view for view in snapshot.pools if can_replace(view, state, snapshot.at)]
    worst = max(grown, key=lambda view: view.main_bytes - view.main_start_bytes, default=None)
    least = level_bytes(snapshot, MIN_MAIN_GROWTH_PERCENT)
    if worst is None or worst.main_bytes - worst.main_start_bytes < least:
        return None
    reason = (
        f"its main process grew from {format_mib(worst.main_start_bytes)} to {format_mib(worst.main_bytes)}, "
        "which no child's recycle frees"
    )
    return ReplaceWorker(worst.name, reason)


def can_replace(view: PoolView, state: PolicyState, at: float) -> bool:
    """Return whether a worker runs and was not replaced recently."""
    was_replaced = is_recent(state.replaced.get(view.name), at, REPLACE_AGAIN_SECONDS)
    return view.state is PoolState.RUNNING and not was_replaced


def dismiss_traced(snapshot: Snapshot, state: PolicyState) -> Iterator[RetireTraced]:
    """Yield the retirement of each child whose tracing is over or was given up."""
    for child in snapshot.children:
        view = find_worker(snapshot, child)
        if child.tracing != "over" or view is None or child.owner.pid in view.leaving:
            continue
        if not is_recent(state.dismissed.get(child.owner), snapshot.at, DISMISS_AGAIN_SECONDS):
            yield RetireTraced(owner=child.owner, slot=view.slot, reason="it has traced allocations")
