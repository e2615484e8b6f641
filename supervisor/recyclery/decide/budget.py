"""What will be held, and what a child may hold of it: the sums that several rungs go by.

They start from the floor, which is the kernel's own figure, and add what is still to come: sums over processes
count shared pages more than once, differences of them do not.
"""

from __future__ import annotations

from msgspec.structs import replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.snapshot import Child, PoolView, Snapshot

MIB = 1 << 20


def level_bytes(snapshot: Snapshot, percent: float) -> int:
    """Return a share of the limit in bytes."""
    return int(snapshot.container.limit_bytes * percent / 100)


def projected_peak_bytes(
    snapshot: Snapshot, state: PolicyState, settings: Settings, without: Child | None = None
) -> int:
    """Return the floor when as many children as may run have their task at its peak; or that of all but one.

    Of a worker with a child more than may run, one stands by until another has left: it does not count yet.
    """
    total = snapshot.container.floor_bytes - (without.tree_bytes if without is not None else 0)
    for pool in settings.pools:
        by_slot: dict[str, list[Child]] = {}
        for child in snapshot.children:
            if child.owner.pool == pool.name:
                by_slot.setdefault(child.slot, []).append(child)
        for slot, children in by_slot.items():
            places = concurrency_of(snapshot, pool)
            if without is not None and without.owner.pool == pool.name and without.slot == slot:
                places -= 1
            staying = [child for child in children if child is not without and not is_leaving(child, snapshot)]
            busy = [remaining_growth_bytes(child, state) for child in staying if child.task_id is not None]
            idle = [remaining_growth_bytes(child, state) for child in staying if child.task_id is None]
            total += sum(busy) + sum(idle[: max(0, places - len(busy))])
    return total


def is_leaving(child: Child, snapshot: Snapshot) -> bool:
    """Tell whether an idle child will get no task any more."""
    view = find_worker(snapshot, child)
    if view is None or child.task_id is not None:
        return False
    if view.state is PoolState.DRAINING:
        return True
    limit = None if child.tracing else view.max_tasks_per_child
    at_limit = limit is not None and child.tasks_done >= limit
    return at_limit or child.owner.pid in view.leaving


def remaining_growth_bytes(child: Child, state: PolicyState) -> int:
    """Return what a child may yet take for the task it has or will have."""
    tail = state.headroom_bytes(child.owner.pool)
    if child.task_id is None:
        return tail
    model = state.models.get(child.owner.pool, PoolModel())
    return max(0, int(model.fresh_child_bytes or 0) + tail - child.tree_bytes)


def child_budget(child: Child, snapshot: Snapshot, state: PolicyState, settings: Settings) -> int:
    """Return what one child may hold: the retire level, less all else at its height."""
    rest = projected_peak_bytes(snapshot, state, settings, without=child)
    return level_bytes(snapshot, settings.memory.retire_percent) - rest


def pool_budget(pool: Pool, snapshot: Snapshot, state: PolicyState, settings: Settings) -> int:
    """Return what each child of a pool may hold: the retire level, less all else at its height, shared out."""
    others = replace(settings, pools=tuple(other for other in settings.pools if other.name != pool.name))
    own = sum(child.tree_bytes for child in active_children(snapshot, pool.name))
    rest = projected_peak_bytes(snapshot, state, others) - own
    return max(0, level_bytes(snapshot, settings.memory.retire_percent) - rest) // concurrency_of(
        snapshot, pool
    )


def reclaimable_bytes(child: Child, state: PolicyState) -> int:
    """Return what a fresh child in this one's place would save, a running task's own memory not counted."""
    model = state.models.get(child.owner.pool, PoolModel())
    kept = child.tree_bytes if child.task_id is None else min(child.idle_bytes, child.tree_bytes)
    return kept - int(model.fresh_child_bytes or 0)


def concurrency_of(snapshot: Snapshot, pool: Pool) -> int:
    """How many children share the pool's memory; one where tasks run in the main process."""
    if not pool.forks:
        return 1
    view = find_view(snapshot, pool.name)
    return max(1, view.concurrency or pool.concurrency) if view is not None else pool.concurrency


def find_view(snapshot: Snapshot, pool: str) -> PoolView | None:
    """Return the worker that serves the pool; None before PID 1 has told of it."""
    return next((view for view in snapshot.pools if view.name == pool), None)


def find_worker(snapshot: Snapshot, child: Child) -> PoolView | None:
    """Return a child's worker; None where that is not known, or dead."""
    place = child.owner.pool, child.slot
    return next((view for view in snapshot.workers if (view.name, view.slot) == place), None)


def active_children(snapshot: Snapshot, pool: str) -> list[Child]:
    """Return the pool's living children, but those of a worker beside the one that serves it."""
    beside = {view.slot for view in snapshot.others if view.name == pool}
    return [child for child in snapshot.children if child.owner.pool == pool and child.slot not in beside]


def mib(size_bytes: float) -> str:
    """Say a size for people."""
    return f"{size_bytes / MIB:.0f} MiB"


def format_count(number: int, thing: str) -> str:
    """Say a number of things for people."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
