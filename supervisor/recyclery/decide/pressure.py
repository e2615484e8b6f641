"""Near the limit: look more often; pause consuming (rung 3); preempt before the kernel does (rung 5).

Hold (pause): memory is at `high_percent`, and the pool's next task would take it past `hard_percent`. Until
    that task fits with MARGIN_PERCENT to spare, or memory is CLEAR_PERCENT below `high_percent`. Tasks wait in
    their queue.
Preempt: memory is at `hard_percent`. At most once in PREEMPT_AGAIN_SECONDS. The child's task runs again.

Memory is what the container cannot reclaim (`floor_bytes`). Settings: `high_percent`, `hard_percent`.

The time to the next tick is shorter, the closer memory is to its limit and the faster it rises:

| condition | seconds |
|---|---|
| below ALERT_PERCENT of the limit | CALM_SECONDS, or BROWSER_START_SECONDS while a browser starts |
| above it | ALERT_SECONDS |
| above it, and late, or at `hard_percent` within two ticks | URGENT_SECONDS |
| files of dead browsers or a browser without its driver are left | at most ALERT_SECONDS |
"""

from collections.abc import Iterator

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib
from recyclery.config.settings import Settings
from recyclery.decide.actions import PauseConsuming, PreemptChild
from recyclery.decide.max_tasks import MIN_RECLAIMABLE_BYTES
from recyclery.decide.memory_levels import active_children, active_workers, concurrency_of, level_bytes
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import Child, Snapshot

PREEMPT_AGAIN_SECONDS = 2.0
CLEAR_PERCENT = 10
MARGIN_PERCENT = 3
CALM_SECONDS = 1.0
# A browser allocates 200 MB in a second.
ALERT_SECONDS = 0.2
ALERT_PERCENT = 70
# The files of a browser that is killed this soon after its start are known by then.
BROWSER_START_SECONDS = 0.2
# The shortest interval at which polling does not dominate CPU time.
URGENT_SECONDS = 0.05
# A tick that comes this late means that the container is throttled, or thrashes.
LATE_TICK_SECONDS = 2.0


def pause_pools(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[PauseConsuming]:
    """Yield the pools to pause, to keep paused and to resume.

    A worker resumes by itself when its pause is not renewed, so a pause is decided on again in every tick.
    """
    floor = snapshot.container.floor_bytes
    high = level_bytes(snapshot, settings.memory.high_percent)
    clear = level_bytes(snapshot, settings.memory.high_percent - CLEAR_PERCENT)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    margin = level_bytes(snapshot, MARGIN_PERCENT)
    for pool, view in active_workers(snapshot, settings):
        if view.holding is None or view.state is not PoolState.RUNNING:
            continue
        headroom = state.headroom_bytes(pool.name)
        reason = f"{format_mib(floor)} cannot be reclaimed, and the next task may need {format_mib(headroom)}"
        if view.holding:
            pause = floor >= clear and floor + headroom > hard - margin
        else:
            busy = sum(child.task_id is not None for child in active_children(snapshot, pool.name))
            has_room = busy < concurrency_of(snapshot, pool)
            pause = floor >= high and floor + headroom > hard and has_room
        if pause:
            past_it = f"together past {format_mib(hard)}, {settings.memory.hard_percent:g} % of the limit"
            yield PauseConsuming(pool.name, on=True, renewed=view.holding, reason=f"{reason}: {past_it}")
        elif view.holding:
            reason += ", for which there is room"
            yield PauseConsuming(pool.name, on=False, renewed=False, reason=reason)


def preempt_largest(snapshot: Snapshot, state: PolicyState, settings: Settings) -> PreemptChild | None:
    """Return the kill of the child whose memory exceeds a fresh child's by the most.

    So a pool of small children does not pay for a pool of large ones. None where no child has an excess:
    something else fills the memory.
    """
    container, hard_percent = snapshot.container, settings.memory.hard_percent
    is_short = container.floor_bytes >= level_bytes(snapshot, hard_percent)
    if not is_short or is_recent(state.preempted, snapshot.at, PREEMPT_AGAIN_SECONDS):
        return None
    pools = {pool.name for pool in settings.pools}
    children = [child for child in snapshot.children if child.owner.pool in pools]
    worst = max(children, key=lambda child: excess_bytes(child, state), default=None)
    if worst is None or excess_bytes(worst, state) < MIN_RECLAIMABLE_BYTES:
        return None
    processes = tuple(process for process in worst.processes if not process.is_defunct)
    reason = (
        f"{format_mib(container.floor_bytes)} cannot be reclaimed, above {hard_percent:g} % of "
        f"{format_mib(container.limit_bytes)}; this child holds the most, {format_mib(worst.tree_bytes)}"
    )
    return PreemptChild(processes, reason, worst.owner)


def excess_bytes(child: Child, state: PolicyState) -> int:
    """Return by how much a child's memory, its task's included, exceeds a fresh child's."""
    return child.tree_bytes - state.fresh_child_bytes(child.owner.pool)


def poll_interval_seconds(snapshot: Snapshot | None, before: Snapshot | None, settings: Settings) -> float:
    """Return the time from this snapshot to the next, given the one before."""
    if snapshot is None:
        return CALM_SECONDS
    floor = snapshot.container.floor_bytes
    if floor < level_bytes(snapshot, ALERT_PERCENT):
        if snapshot.browsers_starting:
            return BROWSER_START_SECONDS
        return ALERT_SECONDS if snapshot.leftover_files or snapshot.orphaned_browsers else CALM_SECONDS
    if snapshot.late_seconds > LATE_TICK_SECONDS:
        return URGENT_SECONDS
    rise = 0.0
    if before is not None and snapshot.at > before.at:
        rise = (floor - before.container.floor_bytes) / (snapshot.at - before.at)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    return URGENT_SECONDS if floor + rise * 2 * ALERT_SECONDS >= hard else ALERT_SECONDS
