"""Rungs 3 and 5: near the limit, heavy pools take no more tasks; at it, the child that holds most over its part
is killed before the kernel chooses."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import Hold, Preempt
from recyclery.decide.budget import active_children, concurrency_of, find_view, level_bytes, mib
from recyclery.decide.max_tasks import MIN_RECLAIMABLE_BYTES
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import Child, Snapshot

PREEMPT_AGAIN_SECONDS = 2.0
# A level that was passed counts as left only this far below it.
CLEAR_PERCENT = 10
# A held pool's next task must fit with so much of the limit to spare, lest it be held and let go by turns.
MARGIN_PERCENT = 3


def pause_pools(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[Hold]:
    """The pools that are to stop taking tasks, to go on not taking them, or to take them again.

    One that could start another task is held above the high level when that task's memory would not fit below
    the hard one; it is let go when the task fits, or the level has been left. A worker lets go by itself when
    nobody renews the hold, so one decided on is decided on again each tick.
    """
    floor = snapshot.container.floor_bytes
    high = level_bytes(snapshot, settings.memory.high_percent)
    clear = level_bytes(snapshot, settings.memory.high_percent - CLEAR_PERCENT)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    margin = level_bytes(snapshot, MARGIN_PERCENT)
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or view.holding is None or view.state is not PoolState.RUNNING:
            continue
        next_bytes = state.headroom_bytes(pool.name)
        reason = f"{mib(floor)} cannot be reclaimed, and the next task may need {mib(next_bytes)}"
        if view.holding:
            on = floor >= clear and floor + next_bytes > hard - margin
        else:
            on = floor >= high and floor + next_bytes > hard and has_room_for_a_task(snapshot, pool)
        if on:
            past_it = f"together past {mib(hard)}, {settings.memory.hard_percent:g} % of the limit"
            yield Hold(pool=pool.name, on=True, renewed=view.holding, reason=f"{reason}: {past_it}")
        elif view.holding:
            yield Hold(pool=pool.name, on=False, renewed=False, reason=f"{reason}, for which there is room")


def has_room_for_a_task(snapshot: Snapshot, pool: Pool) -> bool:
    """Tell whether the pool could start one more task now."""
    busy = sum(child.task_id is not None for child in active_children(snapshot, pool.name))
    return busy < concurrency_of(snapshot, pool)


def preempt_largest(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Preempt | None:
    """The child to kill now, with all it started, so that the kernel need not choose.

    The one that holds most more than a fresh one: the fast pool does not pay for the slow pool's sins.
    """
    container = snapshot.container
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    if container.floor_bytes < hard:
        return None
    if is_recent(state.preempted, snapshot.at, PREEMPT_AGAIN_SECONDS):
        return None
    pools = {pool.name for pool in settings.pools}
    candidates = [
        child
        for child in snapshot.children
        if child.owner.pool in pools and excess_bytes(child, state) >= MIN_RECLAIMABLE_BYTES
    ]
    if not candidates:
        # Whatever fills the memory, it is not what our children hold.
        return None
    worst = max(candidates, key=lambda child: excess_bytes(child, state))
    return Preempt(
        owner=worst.owner,
        processes=tuple(process for process in worst.processes if not process.is_defunct),
        reason=(
            f"{mib(container.floor_bytes)} cannot be reclaimed, above {settings.memory.hard_percent:g} % of "
            f"{mib(container.limit_bytes)}; this child holds the most, "
            f"{mib(worst.tree_bytes)}"
        ),
    )


def excess_bytes(child: Child, state: PolicyState) -> int:
    """Return by how much a child holds more than a fresh one, its task's memory counted."""
    return child.tree_bytes - int(state.models.get(child.owner.pool, PoolModel()).fresh_child_bytes or 0)
