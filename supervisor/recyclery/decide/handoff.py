"""Rung 4 in its steps: a successor starts beside a worker, takes tasks, and only then the old one leaves.

The steps follow from what runs, so a governor that comes anew goes on where another one died. Where memory does
not allow two workers at once, PID 1 has the old one drain and start anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.config.slots import other_slot
from recyclery.decide.actions import AbortRollout, KillWorker, ReplaceWorker, Retire, StopOld
from recyclery.decide.budget import (
    active_children,
    concurrency_of,
    find_view,
    level_bytes,
    mib,
    projected_peak_bytes,
    remaining_growth_bytes,
)
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState, is_recent, without_key
from recyclery.observe.snapshot import PoolView, Snapshot

# A successor that takes no tasks so long after its start is given up: an app's imports take seconds, not that.
SUCCESSOR_SECONDS = 120.0
# One that PID 1 was told to start is seen at the next look, unless PID 1 is busy.
SUCCESSOR_SEEN_SECONDS = 10.0
# After that the next one is tried of ourselves; a person, or a change of the settings, need not wait.
ROLLOUT_RETRY_SECONDS = 600.0


def replace_requested(snapshot: Snapshot, state: PolicyState, settings: Settings) -> ReplaceWorker | None:
    """The worker that a person wants replaced, or whose settings have changed since its start."""
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or not view.is_in_service or is_rolling_out(view, snapshot):
            continue
        if pool.name in state.asked:
            return ReplaceWorker(pool=pool.name, reason=state.asked[pool.name])
        if (
            view.outdated
            and view.state is PoolState.RUNNING
            and not failed_recently(pool.name, snapshot, state)
        ):
            return ReplaceWorker(pool=pool.name, reason="its settings have changed since its start")
    return None


def plan_rollout(
    action: Retire | ReplaceWorker | KillWorker | None,
    snapshot: Snapshot,
    state: PolicyState,
    settings: Settings,
) -> Retire | ReplaceWorker | KillWorker | None:
    """Return the action with the place for a successor, where it is a replacement; None where it has to wait.

    It waits while the pool's former worker still drains, and where the last successor was of no use.
    """
    if not isinstance(action, ReplaceWorker):
        return action
    view = find_view(snapshot, action.pool)
    pool = next((pool for pool in settings.pools if pool.name == action.pool), None)
    if view is None or pool is None or is_rolling_out(view, snapshot):
        return None
    if action.pool not in state.asked and not view.outdated and failed_recently(action.pool, snapshot, state):
        return None
    action = replace(action, slot=view.slot)
    shortage = find_shortage(pool, view, snapshot, state, settings)
    if shortage is not None:
        return replace(action, reason=f"{action.reason}; {shortage}")
    return replace(action, successor=other_slot(pool.name, view.slot))


def find_shortage(
    pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> str | None:
    """Say with figures why memory does not allow a second worker; None where it does.

    While there are two, the old one goes on with the tasks that it has, and the new one may run as many.
    """
    others = structs.replace(settings, pools=tuple(other for other in settings.pools if other is not pool))
    busy = [child for child in active_children(snapshot, pool.name) if child.task_id is not None]
    beside = projected_peak_bytes(snapshot, state, others) + sum(
        remaining_growth_bytes(child, state) for child in busy
    )
    second = worker_bytes(pool, view, snapshot, state)
    level = level_bytes(snapshot, settings.memory.retire_percent)
    if beside + second <= level:
        return None
    return (
        f"a second worker may take {mib(second)}, which beside the {mib(beside)} of all else passes "
        f"{mib(level)}, {settings.memory.retire_percent} % of the limit"
    )


def worker_bytes(pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState) -> int:
    """Return what a pool's worker may come to hold: its main process, and its children with a task each."""
    children = active_children(snapshot, pool.name)
    fresh = state.models.get(pool.name, PoolModel()).fresh_child_bytes
    if fresh is None:
        fresh = max((child.tree_bytes for child in children), default=0)
    child = int(fresh) + state.headroom_bytes(pool.name)
    # Where tasks run in the main process, that is what was learned of as a child.
    main = view.main_start_bytes if pool.forks else 0
    return main + concurrency_of(snapshot, pool) * child


def finish_rollouts(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> Iterator[StopOld | AbortRollout]:
    """The old workers that are to leave, for their successors take tasks; and successors that are no use."""
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    for old in snapshot.pools:
        successor = find_successor(old, snapshot)
        if successor is None:
            continue
        if successor.consuming:
            yield StopOld(
                pool=old.name, slot=old.slot, successor=successor.slot, reason=f"{successor.slot} takes tasks"
            )
            continue
        waited = snapshot.at - successor.started
        if snapshot.container.floor_bytes >= hard:
            reason = f"{mib(snapshot.container.floor_bytes)} cannot be reclaimed, above {mib(hard)}"
            yield AbortRollout(pool=old.name, slot=successor.slot, reason=reason)
        elif waited >= SUCCESSOR_SECONDS:
            reason = f"it takes no tasks {waited:.0f} s after its start"
            yield AbortRollout(pool=old.name, slot=successor.slot, reason=reason)


def update_successors(state: PolicyState, snapshot: Snapshot) -> tuple[PolicyState, list[str]]:
    """Compare successors with what runs; return a line for each that has gone before it took over."""
    lines = []
    for pool, successor in state.successors.items():
        slots = (*snapshot.workers, *snapshot.empty_slots)
        view = next((view for view in slots if view.slot == successor.slot), None)
        if view is not None and view.is_in_service:
            rest = without_key(state.successors, pool)
            # Where it serves, the one that it was to follow died meanwhile.
            seen = {} if view in snapshot.pools else {pool: replace(successor, seen=True)}
            state = replace(state, successors={**rest, **seen})
        elif successor.seen or snapshot.at - successor.at > SUCCESSOR_SEEN_SECONDS:
            ended = f": it {view.end}" if view is not None and view.end else ""
            line = f"{successor.slot} was to take over {pool} and did not stay up{ended}; the old one goes on"
            state = state.with_failed_replacement(pool, line, snapshot.at)
            lines.append(line)
    return state, lines


def find_successor(view: PoolView, snapshot: Snapshot) -> PoolView | None:
    """Return the worker that is to follow this one; None where there is none."""
    if not view.is_in_service:
        return None
    return next((other for other in snapshot.others if other.name == view.name and other.is_in_service), None)


def is_rolling_out(view: PoolView, snapshot: Snapshot) -> bool:
    """Tell whether the pool has another worker beside this one: no slot is free."""
    return any(other.name == view.name for other in snapshot.others)


def failed_recently(pool: str, snapshot: Snapshot, state: PolicyState) -> bool:
    """Tell whether the pool's last successor was of no use, and not long ago."""
    return is_recent(state.failed_rollouts.get(pool), snapshot.at, ROLLOUT_RETRY_SECONDS)
