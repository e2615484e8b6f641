"""`max_task_bytes`: a task that passes it fails, and nobody else pays.

InterruptTask: the task's memory, with no page counted twice (`observe.task_memory`), passes its limit. Raises
    TaskMemoryLimitExceeded in the task. Once a task.
FailTask: the task has not ended GRACE_SECONDS later; or it is past its limit and the container at
    `hard_percent`. The task fails and its child is killed; it is not given back, and no death is counted.

Setting: `max_task_bytes` of a pool, in workers whose pool is ours.
"""

from collections.abc import Iterator

from recyclery.common.units import format_mib
from recyclery.config.settings import Settings
from recyclery.decide.actions import FailTask, InterruptTask, Warn
from recyclery.decide.memory_levels import active_workers, find_worker, level_bytes
from recyclery.decide.policy_state import PolicyState, is_recent
from recyclery.observe.snapshot import Child, Snapshot

# As Celery's users have between a soft and a hard time limit: to close a browser takes a second.
GRACE_SECONDS = 5.0
FAIL_AGAIN_SECONDS = 10.0


def interrupt_tasks(snapshot: Snapshot, state: PolicyState, settings: Settings) -> Iterator[InterruptTask]:
    """Yield the tasks past their limit that have not been told to end."""
    for child in snapshot.children:
        if (reason := past_limit(child, settings)) is None or was_told(child, state):
            continue
        view = find_worker(snapshot, child)
        if view is not None and view.retires and child.task_id is not None:
            yield InterruptTask(child.owner, view.slot, child.task_id, reason)


def fail_task(snapshot: Snapshot, state: PolicyState, settings: Settings) -> FailTask | None:
    """Return the end of the first task that was told to end and has not, or that memory leaves no time for."""
    is_short = snapshot.container.floor_bytes >= level_bytes(snapshot, settings.memory.hard_percent)
    for child in snapshot.children:
        view = find_worker(snapshot, child)
        if child.task_id is None or view is None or not view.retires:
            continue
        if is_recent(state.failed_tasks.get(child.owner), snapshot.at, FAIL_AGAIN_SECONDS):
            continue
        told = state.interrupted.get(child.owner)
        reason = past_limit(child, settings)
        is_due = told is not None and told.still_runs(child) and snapshot.at - told.at >= GRACE_SECONDS
        # One that may not have been told is ended only while it is past its limit.
        if is_due and told is not None and limit_of(child, settings) and (told.arrived or reason is not None):
            return FailTask(child.owner, view.slot, child.task_id, told.reason)
        if is_short and reason is not None:
            return FailTask(child.owner, view.slot, child.task_id, reason)
    return None


def was_told(child: Child, state: PolicyState) -> bool:
    """Return whether a child's present task was told to end."""
    told = state.interrupted.get(child.owner)
    return told is not None and told.still_runs(child)


def past_limit(child: Child, settings: Settings) -> str | None:
    """Return why a child's task must end; None where it may go on."""
    limit = limit_of(child, settings)
    if limit is None or child.task_id is None or child.task_bytes <= limit:
        return None
    return (
        f"{child.task_name} has taken {format_mib(child.task_bytes)}, with all that it started, "
        f"and may take {format_mib(limit)} (max_task_bytes of {child.owner.pool})"
    )


def limit_of(child: Child, settings: Settings) -> int | None:
    """Return what a child's task may take; None where it has no limit."""
    pool = next((pool for pool in settings.pools if pool.name == child.owner.pool), None)
    return pool.task_limit_bytes(child.task_name) if pool is not None else None


def warn_of_unlimited_tasks(snapshot: Snapshot, settings: Settings) -> Iterator[Warn]:
    """Warn of workers that cannot end a single task."""
    for pool, view in active_workers(snapshot, settings):
        if pool.limits_tasks and view.vitals is not None and not view.retires:
            text = f"max_task_bytes of {pool.name} has no effect: this worker cannot end a single task"
            yield Warn(f"unlimited/{pool.name}", text)
