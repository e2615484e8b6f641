"""Rung 4, rolling replacement: a successor starts, consumes, and only then the old worker drains.

Start: an operator asked for it, the settings have changed since the worker's start, or another rung wants it.
    The successor starts in the pool's other slot if the projected peak with it stays below `retire_percent`
    and no beat runs inside the worker; else the old worker drains, and restarts in its own slot.
StopOld: the successor consumes. The old worker finishes its tasks, which costs nothing.
AbortRollout: the successor has not consumed for SUCCESSOR_SECONDS, or memory is at `hard_percent`. The next
    attempt without an operator comes after ROLLOUT_RETRY_SECONDS.

Each step follows from the snapshot alone, so a restarted governor continues a replacement.
"""

from collections.abc import Iterator
from dataclasses import replace

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import AbortRollout, KillWorker, ReplaceWorker, RetireChild, StopOld
from recyclery.decide.memory_levels import (
    active_children,
    active_workers,
    concurrency_of,
    find_active_worker,
    level_bytes,
    projected_peak_bytes,
    remaining_growth_bytes,
)
from recyclery.decide.policy_state import PolicyState, is_recent, without_key
from recyclery.observe.snapshot import PoolView, Snapshot

# An app's imports take seconds, not minutes.
SUCCESSOR_SECONDS = 120.0
# PID 1 has started a worker by the next snapshot, unless it is busy.
SUCCESSOR_SEEN_SECONDS = 10.0
ROLLOUT_RETRY_SECONDS = 600.0
BEAT = "beat runs inside it (-B), and two would send each task twice"


def replace_requested(snapshot: Snapshot, state: PolicyState, settings: Settings) -> ReplaceWorker | None:
    """Return the replacement that an operator or changed settings ask for."""
    for pool, view in active_workers(snapshot, settings):
        if not view.is_in_service or is_rolling_out(view, snapshot):
            continue
        if pool.name in state.asked:
            return ReplaceWorker(pool.name, state.asked[pool.name])
        is_outdated = view.outdated and view.state is PoolState.RUNNING
        if is_outdated and not failed_recently(pool.name, snapshot, state):
            return ReplaceWorker(pool.name, "its settings have changed since its start")
    return None


def plan_rollout(
    action: RetireChild | ReplaceWorker | KillWorker | None,
    snapshot: Snapshot,
    state: PolicyState,
    settings: Settings,
) -> RetireChild | ReplaceWorker | KillWorker | None:
    """Return a replacement with its slots, any other action as it is.

    None for a replacement that has to wait: the former worker still drains, or the last attempt just failed.
    """
    if not isinstance(action, ReplaceWorker):
        return action
    view = find_active_worker(snapshot, action.pool)
    pool = next((pool for pool in settings.pools if pool.name == action.pool), None)
    if view is None or pool is None or is_rolling_out(view, snapshot):
        return None
    if action.pool not in state.asked and not view.outdated and failed_recently(action.pool, snapshot, state):
        return None
    action = structs.replace(action, slot=view.slot)
    obstacle = BEAT if pool.runs_beat else find_shortage(pool, view, snapshot, state, settings)
    if obstacle is not None:
        return structs.replace(action, reason=f"{action.reason}; {obstacle}")
    return structs.replace(action, successor=pool.other_slot(view.slot))


def find_shortage(
    pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> str | None:
    """Return why memory does not allow a second worker, with figures; None where it does.

    With two workers the old one goes on with its running tasks, and the new one may run as many.
    """
    others = structs.replace(settings, pools=tuple(other for other in settings.pools if other is not pool))
    children = active_children(snapshot, pool.name)
    busy = [child for child in children if child.task_id is not None]
    rest = projected_peak_bytes(snapshot, state, others)
    rest += sum(remaining_growth_bytes(child, state) for child in busy)
    fresh = state.fresh_child_bytes(pool.name) or max((child.tree_bytes for child in children), default=0)
    # Where tasks run in the main process, that is what was learned of as a child.
    main = view.main_start_bytes if pool.forks else 0
    second = main + concurrency_of(snapshot, pool) * (fresh + state.headroom_bytes(pool.name))
    level = level_bytes(snapshot, settings.memory.retire_percent)
    if rest + second <= level:
        return None
    return (
        f"a second worker may take {format_mib(second)}, which beside the {format_mib(rest)} of all else "
        f"passes {format_mib(level)}, {settings.memory.retire_percent} % of the limit"
    )


def finish_rollouts(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> Iterator[StopOld | AbortRollout]:
    """Yield the old workers to drain and the successors to abort."""
    floor, hard = snapshot.container.floor_bytes, level_bytes(snapshot, settings.memory.hard_percent)
    for old in snapshot.pools:
        if (successor := find_successor(old, snapshot)) is None:
            continue
        waited = snapshot.at - successor.started
        if successor.consuming:
            yield StopOld(old.name, f"{successor.slot} takes tasks", old.slot, successor.slot)
        elif floor >= hard:
            reason = f"{format_mib(floor)} cannot be reclaimed, above {format_mib(hard)}"
            yield AbortRollout(old.name, reason, successor.slot)
        elif waited >= SUCCESSOR_SECONDS:
            reason = f"it takes no tasks {waited:.0f} s after its start"
            yield AbortRollout(old.name, reason, successor.slot)


def update_successors(state: PolicyState, snapshot: Snapshot) -> tuple[PolicyState, list[str]]:
    """Return the state after this snapshot, and a line for each successor that exited before it took over."""
    lines = []
    for pool, successor in state.successors.items():
        slots = (*snapshot.workers, *snapshot.empty_slots)
        view = next((view for view in slots if view.slot == successor.slot), None)
        if view is not None and view.is_in_service:
            rest = without_key(state.successors, pool)
            # It is the active worker where the old one has died meanwhile.
            seen = {} if view in snapshot.pools else {pool: replace(successor, seen=True)}
            state = replace(state, successors={**rest, **seen})
        elif successor.seen or snapshot.at - successor.at > SUCCESSOR_SEEN_SECONDS:
            ended = f": it {view.end}" if view is not None and view.end else ""
            line = f"{successor.slot} was to take over {pool} and did not stay up{ended}; the old one goes on"
            state = state.with_failed_replacement(pool, line, snapshot.at)
            lines.append(line)
    return state, lines


def find_successor(view: PoolView, snapshot: Snapshot) -> PoolView | None:
    """Return the worker that is to take over from this one; None where there is none."""
    if not view.is_in_service:
        return None
    return next((other for other in snapshot.others if other.name == view.name and other.is_in_service), None)


def is_rolling_out(view: PoolView, snapshot: Snapshot) -> bool:
    """Return whether the pool has a second worker, so that no slot is free."""
    return any(other.name == view.name for other in snapshot.others)


def failed_recently(pool: str, snapshot: Snapshot, state: PolicyState) -> bool:
    """Return whether the pool's last replacement failed less than ROLLOUT_RETRY_SECONDS ago."""
    return is_recent(state.failed_rollouts.get(pool), snapshot.at, ROLLOUT_RETRY_SECONDS)
