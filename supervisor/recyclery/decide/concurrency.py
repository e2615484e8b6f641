"""Live concurrency: one task more at a time when there is work, memory and CPU for it, one less when not."""

from __future__ import annotations

from collections.abc import Iterator

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import ChangeConcurrency
from recyclery.decide.budget import active_children, find_view, level_bytes, mib, projected_peak_bytes
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import PoolView, Snapshot

# Work must have waited this long before there is one more, and a child been idle this long before one less.
BACKLOG_SECONDS = 3.0
IDLE_SECONDS = 30.0
RAISE_AGAIN_SECONDS = 10.0
CPU_FULL = 0.9


def scale_pools(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[ChangeConcurrency]:
    """The pools with a range of concurrency whose number is to change, each by one."""
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or not view.retires or view.state is not PoolState.RUNNING or view.concurrency is None:
            continue
        if not pool.least <= view.concurrency <= pool.most:
            bound = min(max(view.concurrency, pool.least), pool.most)
            yield ChangeConcurrency(
                pool=pool.name, concurrency=bound, reason=f"its range is {pool.least} to {pool.most}"
            )
        elif pool.least < pool.most:
            change = lower_by_one(pool, view, snapshot, state, settings) or raise_by_one(
                pool, view, snapshot, state, settings
            )
            if change is not None:
                yield change


def raise_by_one(
    pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> ChangeConcurrency | None:
    """One more: tasks have waited, and all that runs at its height leaves room for one more at its own."""
    assert view.concurrency is not None  # noqa: S101  # the caller has looked
    waited = state.busy_since.get(pool.name)
    if view.concurrency >= pool.most or waited is None or snapshot.at - waited < BACKLOG_SECONDS:
        return None
    if is_recent(state.scaled.get(pool.name), snapshot.at, RAISE_AGAIN_SECONDS) or view.holding:
        return None
    model = state.models.get(pool.name, PoolModel())
    if not model.tails or snapshot.cpu_share > CPU_FULL:
        return None
    one = int(model.fresh_child_bytes or 0) + state.headroom_bytes(pool.name)
    needed = projected_peak_bytes(snapshot, state, settings) + one
    level = level_bytes(snapshot, settings.memory.retire_percent)
    if needed > level:
        return None
    return ChangeConcurrency(
        pool=pool.name,
        concurrency=view.concurrency + 1,
        reason=(
            f"{view.queue_depth} tasks wait; with one more at {mib(one)} everything at its height "
            f"is {mib(needed)}, within {mib(level)}"
        ),
    )


def lower_by_one(
    pool: Pool, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings
) -> ChangeConcurrency | None:
    """One less: there is no work for the last one, or not the memory for all at their height."""
    assert view.concurrency is not None  # noqa: S101  # the caller has looked
    if view.concurrency <= pool.least:
        return None
    needed = projected_peak_bytes(snapshot, state, settings)
    hard = level_bytes(snapshot, settings.memory.hard_percent)
    # Between the retire and the hard level nothing changes, lest it go up and down for ever.
    if needed > hard and not is_recent(state.scaled.get(pool.name), snapshot.at, RAISE_AGAIN_SECONDS):
        reason = f"everything at its height is {mib(needed)}, past {mib(hard)}"
        return ChangeConcurrency(pool=pool.name, concurrency=view.concurrency - 1, reason=reason)
    idle = state.idle_since.get(pool.name)
    if idle is not None and snapshot.at - idle >= IDLE_SECONDS:
        if is_recent(state.scaled.get(pool.name), snapshot.at, IDLE_SECONDS):
            return None
        reason = f"a child has been idle for {snapshot.at - idle:.0f} s"
        return ChangeConcurrency(pool=pool.name, concurrency=view.concurrency - 1, reason=reason)
    return None


def update_workload(
    state: PolicyState, snapshot: Snapshot, settings: Settings
) -> tuple[dict[str, float], dict[str, float]]:
    """Return since when pools have been busy with tasks waiting, and since when they have had idle children."""
    busy, idle = {}, {}
    for pool in settings.pools:
        view, children = find_view(snapshot, pool.name), active_children(snapshot, pool.name)
        if view is None or not children:
            continue
        working = sum(child.task_id is not None for child in children)
        if working >= (view.concurrency or pool.concurrency):
            if view.queue_depth:
                busy[pool.name] = state.busy_since.get(pool.name, snapshot.at)
        elif not view.queue_depth:
            idle[pool.name] = state.idle_since.get(pool.name, snapshot.at)
    return busy, idle
