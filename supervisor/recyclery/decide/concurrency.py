"""Concurrency between `least` and `most`: one child more while messages wait, one less when idle or too large.

One more: all children have been busy and messages waiting for BACKLOG_SECONDS, at most CPU_FULL of the CPU is
    used, and the projected peak with one more stays below `retire_percent`. Every RAISE_AGAIN_SECONDS at most.
One less: a child has been idle for IDLE_SECONDS, or the projected peak passes `hard_percent`. Nothing happens
    between the two levels, so that the number does not oscillate.

Settings: the pool's `concurrency` range, `retire_percent`, `hard_percent`. A change costs a fork or a child's
    exit.
"""

from collections.abc import Iterator
from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import ChangeConcurrency
from recyclery.decide.memory_levels import active_children, active_workers, level_bytes, projected_peak_bytes
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import PoolView, Snapshot

BACKLOG_SECONDS = 3.0
IDLE_SECONDS = 30.0
RAISE_AGAIN_SECONDS = 10.0
CPU_FULL = 0.9


def scale_pools(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[ChangeConcurrency]:
    """Yield the changes, each by one; into the range where a change of the settings left it outside."""
    for pool, view in active_workers(snapshot, settings):
        now = view.concurrency
        if not view.retires or view.state is not PoolState.RUNNING or now is None:
            continue
        if not pool.least <= now <= pool.most:
            reason = f"its range is {pool.least} to {pool.most}"
            yield ChangeConcurrency(pool.name, min(max(now, pool.least), pool.most), reason)
        elif now > pool.least and (why := why_one_less(pool, snapshot, state, settings)):
            yield ChangeConcurrency(pool.name, now - 1, why)
        elif now < pool.most and (why := why_one_more(pool, view, snapshot, state, settings)):
            yield ChangeConcurrency(pool.name, now + 1, why)


def why_one_more(
    pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> str | None:
    """Return the reason to run one child more; None where there is none."""
    waited = state.busy_since.get(pool.name)
    if waited is None or snapshot.at - waited < BACKLOG_SECONDS or view.holding:
        return None
    if is_recent(state.scaled.get(pool.name), snapshot.at, RAISE_AGAIN_SECONDS):
        return None
    if not state.models.get(pool.name, PoolModel()).tails or snapshot.cpu_share > CPU_FULL:
        return None
    one = state.fresh_child_bytes(pool.name) + state.headroom_bytes(pool.name)
    needed = projected_peak_bytes(snapshot, state, settings) + one
    level = level_bytes(snapshot, settings.memory.retire_percent)
    if needed > level:
        return None
    return (
        f"{view.queue_depth} tasks wait; with one more at {format_mib(one)} everything at its height "
        f"is {format_mib(needed)}, within {format_mib(level)}"
    )


def why_one_less(pool: Pool, snapshot: Snapshot, state: PolicyState, settings: Settings) -> str | None:
    """Return the reason to run one child less; None where there is none."""
    at, changed = snapshot.at, state.scaled.get(pool.name)
    needed = projected_peak_bytes(snapshot, state, settings)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    if needed > hard and not is_recent(changed, at, RAISE_AGAIN_SECONDS):
        return f"everything at its height is {format_mib(needed)}, past {format_mib(hard)}"
    idle = state.idle_since.get(pool.name)
    if idle is not None and at - idle >= IDLE_SECONDS and not is_recent(changed, at, IDLE_SECONDS):
        return f"a child has been idle for {at - idle:.0f} s"
    return None


def update_workload(state: PolicyState, snapshot: Snapshot, settings: Settings) -> PolicyState:
    """Return the state with `busy_since` and `idle_since` after this snapshot."""
    busy, idle = {}, {}
    for pool, view in active_workers(snapshot, settings):
        children = active_children(snapshot, pool.name)
        working = sum(child.task_id is not None for child in children)
        is_busy = working >= (view.concurrency or pool.concurrency)
        if children and is_busy and view.queue_depth:
            busy[pool.name] = state.busy_since.get(pool.name, snapshot.at)
        elif children and not is_busy and not view.queue_depth:
            idle[pool.name] = state.idle_since.get(pool.name, snapshot.at)
    return replace(state, busy_since=busy, idle_since=idle)
