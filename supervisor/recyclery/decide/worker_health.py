"""Rung 4 for unhealthy workers: hung ones are killed, starving ones replaced, forgotten time limits enforced.

hangs: the event loop does not answer for HANG_SECONDS after it was called "not answering" (10 s), in a worker
    whose tasks run in child processes. The worker is killed; its running tasks are redelivered.
starves: for STARVE_SECONDS it takes no message though it consumes, has room and some wait. It is replaced.
overdue: a task is OVERDUE_SECONDS past its hard time limit, and its worker did not end it. The task is ended.

A broker outage looks the same, so no time counts while any worker's heartbeat reports its broker away
(`recyclery_worker.control.server`). Each restart that did not help doubles the wait for the next
(`RestartBackoff`).
"""

from collections.abc import Iterator, Mapping

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import EnforceTimeLimit, KillWorker, ReplaceWorker
from recyclery.decide.memory_levels import active_children, active_workers, find_active_worker, format_count
from recyclery.decide.policy_state import RESTART_BACKOFF_SECONDS, Fault, PolicyState, Unhealthy, is_recent
from recyclery.decide.pressure import LATE_TICK_SECONDS
from recyclery.observe.snapshot import Child, PoolView, Snapshot, Vitals

HANG_SECONDS = 30.0
STARVE_SECONDS = 40.0
OVERDUE_SECONDS = 10.0
TIME_OUT_AGAIN_SECONDS = 10.0
# The most that one tick adds: a tick that comes late saw nothing of the time before it.
MAX_STEP_SECONDS = 3.0


def update_worker_health(
    unhealthy: Mapping[str, Unhealthy], snapshot: Snapshot, settings: Settings
) -> dict[str, Unhealthy]:
    """Return the unhealthy workers by pool, each with how long its fault has been observed."""
    if any(view.vitals is not None and view.vitals.broker_answers is False for view in snapshot.pools):
        return {}
    updated = {}
    for pool, view in active_workers(snapshot, settings):
        if view.vitals is None or (fault := find_worker_fault(pool, view, view.vitals)) is None:
            continue
        before, seconds = unhealthy.get(pool.name), 0.0
        same = (fault, view.vitals.pid, view.vitals.received)
        if before is not None and (before.fault, before.pid, before.received) == same:
            late = snapshot.late_seconds > LATE_TICK_SECONDS
            seconds = before.seconds + (0.0 if late else min(snapshot.at - before.at, MAX_STEP_SECONDS))
        updated[pool.name] = Unhealthy(*same, seconds, snapshot.at)
    return updated


def find_worker_fault(pool: Pool, view: PoolView, vitals: Vitals) -> Fault | None:
    """Return a worker's fault in this snapshot; one that drains or starts has none."""
    is_debugged = view.main is not None and view.main.state == "t"
    # Where tasks run in the main process, one of them may keep it from answering.
    if view.state is PoolState.NOT_ANSWERING and pool.forks and not vitals.stopping and not is_debugged:
        return "hangs"
    if view.state is PoolState.RUNNING and not view.holding and vitals.has_room and vitals.waiting:
        return "starves"
    return None


def restart_unhealthy(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> KillWorker | ReplaceWorker | None:
    """Return how to restart the first worker that has been unhealthy for long enough."""
    for pool, view in active_workers(snapshot, settings):
        unhealthy = state.unhealthy.get(pool.name)
        if view.vitals is None or unhealthy is None:
            continue
        backoff = state.restart_backoffs.get(pool.name)
        if backoff is not None and is_recent(backoff.at, snapshot.at, backoff.pause_seconds):
            continue
        if unhealthy.fault == "hangs" and unhealthy.seconds >= HANG_SECONDS:
            if (kill := kill_hung(view, view.vitals, snapshot)) is not None:
                return kill
        elif unhealthy.fault == "starves" and unhealthy.seconds >= STARVE_SECONDS:
            if is_recent(state.replaced.get(pool.name), snapshot.at, RESTART_BACKOFF_SECONDS):
                continue
            queues = ", ".join(sorted(view.vitals.consumes))
            reason = (
                f"it could take a task and took none for {unhealthy.seconds:.0f} s, "
                f"while {view.vitals.waiting} wait in {queues}"
            )
            return ReplaceWorker(pool=pool.name, reason=reason)
    return None


def kill_hung(view: PoolView, vitals: Vitals, snapshot: Snapshot) -> KillWorker | None:
    """Return the kill of a hung main process with its children; None if it has exited."""
    if view.main is None or view.main.pid != vitals.pid or view.main.is_defunct:
        return None
    children = [child for child in active_children(snapshot, view.name) if parent_of(child) == view.main.pid]
    # The main process first: it must not react to the deaths of its children.
    processes = (view.main, *(each for child in children for each in child.processes if not each.is_defunct))
    running = sum(child.task_id is not None for child in children)
    reason = (
        f"its main process {view.main.pid} has not answered for {snapshot.at - vitals.answered:.0f} s, "
        f"{describe_hang(view, vitals, snapshot)}; {format_count(running, 'task')} of it will run again"
    )
    return KillWorker(processes, reason, view.name)


def describe_hang(view: PoolView, vitals: Vitals, snapshot: Snapshot) -> str:
    """Return whether all of a hung main process stands still or only its event loop, in words."""
    if view.main is not None and view.main.state == "T":
        return "and is stopped (SIGSTOP)"
    if vitals.last_heartbeat is None or snapshot.at - vitals.last_heartbeat > HANG_SECONDS:
        return "no thread of it gives a sign of life"
    broker = ", and its broker answers" if vitals.broker_answers else ""
    return f"though another thread of it lives: its event loop stands still{broker}"


def parent_of(child: Child) -> int:
    """Return the pid of a child's parent; 0 where that is unknown."""
    return next((each.parent for each in child.processes if each.pid == child.owner.pid), 0)


def end_overdue(snapshot: Snapshot, state: PolicyState) -> Iterator[EnforceTimeLimit]:
    """Yield the tasks whose hard time limit was not enforced by their worker."""
    for child in snapshot.children:
        view = find_active_worker(snapshot, child.owner.pool)
        if view is None or view.state is not PoolState.RUNNING or view.vitals is None or child.task_id is None:
            continue
        overdue = view.vitals.overdue.get(child.owner.pid, 0.0)
        if overdue < OVERDUE_SECONDS or parent_of(child) != view.pid:
            continue
        if not is_recent(state.timed_out.get(child.owner), snapshot.at, TIME_OUT_AGAIN_SECONDS):
            reason = f"{child.task_name} is {overdue:.0f} s past its hard time limit, and nobody ended it"
            yield EnforceTimeLimit(owner=child.owner, reason=reason)
