"""The sums that several rungs share: the projected peak of the container, and what a child may hold of it.

They start from the container's unreclaimable memory (`floor_bytes`, the kernel's own figure) and add what tasks
may still allocate: sums over processes count shared pages more than once, differences of them do not.
"""

from collections.abc import Iterator

from msgspec.structs import replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.snapshot import Child, PoolView, Snapshot


def level_bytes(snapshot: Snapshot, percent: float) -> int:
    """Return a share of the memory limit in bytes."""
    return int(snapshot.container.limit_bytes * percent / 100)


def projected_peak_bytes(
    snapshot: Snapshot, state: PolicyState, settings: Settings, without: Child | None = None
) -> int:
    """Return the unreclaimable memory when as many children as may run are at their task's peak.

    Without one child where `without` is given. A worker may have a standby child above its concurrency until
    another one has exited; it is not counted yet.
    """
    total = snapshot.container.floor_bytes - (without.tree_bytes if without is not None else 0)
    for pool in settings.pools:
        children = [child for child in snapshot.children if child.owner.pool == pool.name]
        for slot in {child.slot for child in children}:
            runnable = concurrency_of(snapshot, pool)
            if without is not None and (without.owner.pool, without.slot) == (pool.name, slot):
                runnable -= 1
            others = (child for child in children if child.slot == slot and child is not without)
            staying = [child for child in others if not is_leaving(child, snapshot)]
            busy = [remaining_growth_bytes(child, state) for child in staying if child.task_id is not None]
            idle = [remaining_growth_bytes(child, state) for child in staying if child.task_id is None]
            total += sum(busy) + sum(idle[: max(0, runnable - len(busy))])
    return total


def is_leaving(child: Child, snapshot: Snapshot) -> bool:
    """Return whether an idle child will get no further task."""
    view = find_worker(snapshot, child)
    if view is None or child.task_id is not None:
        return False
    if view.state is PoolState.DRAINING:
        return True
    limit = None if child.tracing else view.max_tasks_per_child
    at_limit = limit is not None and child.tasks_done >= limit
    return at_limit or child.owner.pid in view.leaving


def remaining_growth_bytes(child: Child, state: PolicyState) -> int:
    """Return what a child may still allocate for its present or next task."""
    headroom = state.headroom_bytes(child.owner.pool)
    if child.task_id is None:
        return headroom
    return max(0, state.fresh_child_bytes(child.owner.pool) + headroom - child.tree_bytes)


def child_budget(child: Child, snapshot: Snapshot, state: PolicyState, settings: Settings) -> int:
    """Return what one child may hold: the retire level, less the projected peak of everything else."""
    rest = projected_peak_bytes(snapshot, state, settings, without=child)
    return level_bytes(snapshot, settings.memory.retire_percent) - rest


def pool_budget(pool: Pool, snapshot: Snapshot, state: PolicyState, settings: Settings) -> int:
    """Return what each child of a pool may hold: an equal part of what everything else leaves at its peak."""
    others = replace(settings, pools=tuple(other for other in settings.pools if other.name != pool.name))
    own = sum(child.tree_bytes for child in active_children(snapshot, pool.name))
    rest = projected_peak_bytes(snapshot, state, others) - own
    left = max(0, level_bytes(snapshot, settings.memory.retire_percent) - rest)
    return left // concurrency_of(snapshot, pool)


def reclaimable_bytes(child: Child, state: PolicyState) -> int:
    """Return what the recycle of a child would free, its running task's own memory not counted."""
    return idle_tree_bytes(child) - state.fresh_child_bytes(child.owner.pool)


def idle_tree_bytes(child: Child) -> int:
    """Return what a child holds when idle: during a task what it held before, and the files it has open."""
    if child.task_id is None:
        return child.tree_bytes
    return min(child.idle_bytes + child.file_bytes, child.tree_bytes) if child.idle_bytes else 0


def concurrency_of(snapshot: Snapshot, pool: Pool) -> int:
    """Return how many children share the pool's memory; one where tasks run in the main process."""
    if not pool.forks:
        return 1
    view = find_active_worker(snapshot, pool.name)
    return max(1, view.concurrency or pool.concurrency) if view is not None else pool.concurrency


def active_workers(snapshot: Snapshot, settings: Settings) -> Iterator[tuple[Pool, PoolView]]:
    """Yield the pools whose active worker PID 1 has reported, each with that worker."""
    for pool in settings.pools:
        if (view := find_active_worker(snapshot, pool.name)) is not None:
            yield pool, view


def find_active_worker(snapshot: Snapshot, pool: str) -> PoolView | None:
    """Return a pool's active worker; None before PID 1 has reported it."""
    return next((view for view in snapshot.pools if view.name == pool), None)


def find_worker(snapshot: Snapshot, child: Child) -> PoolView | None:
    """Return a child's worker; None where it is unknown or dead."""
    place = child.owner.pool, child.slot
    return next((view for view in snapshot.workers if (view.name, view.slot) == place), None)


def active_children(snapshot: Snapshot, pool: str) -> list[Child]:
    """Return the living children of a pool's active worker; those of an unknown slot among them."""
    other_slots = {view.slot for view in snapshot.others if view.name == pool}
    return [child for child in snapshot.children if child.owner.pool == pool and child.slot not in other_slots]


def format_count(number: int, thing: str) -> str:
    """Return "1 task", "2 tasks"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
