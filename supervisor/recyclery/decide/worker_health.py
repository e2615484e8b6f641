"""Follows what is wrong with workers as such: a main process hangs, or takes nothing while tasks wait.

None of it is told apart from a broker that is away by its looks, so nothing counts while any worker finds its
broker away: each says so from a thread of its own (`recyclery_worker.control.heartbeat`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Pool, Settings
from recyclery.decide.actions import EnforceTimeLimit, KillWorker, ReplaceWorker
from recyclery.decide.budget import active_children, find_view, format_count
from recyclery.decide.policy_state import (
    RESTART_BACKOFF_SECONDS,
    Fault,
    PolicyState,
    Unhealthy,
    is_recent,
)
from recyclery.decide.poll_interval import LATE_TICK_SECONDS
from recyclery.observe.snapshot import Child, PoolView, Snapshot, Vitals

# A look that comes late, after a freeze or for want of CPU, has not seen the time before it.
MAX_STEP_SECONDS = 3.0


def update_worker_health(
    ailments: Mapping[str, Unhealthy], snapshot: Snapshot, settings: Settings
) -> dict[str, Unhealthy]:
    """Return what is wrong with workers after this snapshot, by pool."""
    followed = {}
    for pool in settings.pools:
        view = find_view(snapshot, pool.name)
        if view is None or view.vitals is None or finds_broker_away(snapshot):
            continue
        kind = diagnose(pool, view, view.vitals)
        if kind is not None:
            followed[pool.name] = follow_ailment(ailments.get(pool.name), kind, view.vitals, snapshot)
    return followed


def follow_ailment(before: Unhealthy | None, kind: Fault, vitals: Vitals, snapshot: Snapshot) -> Unhealthy:
    """Return one ailment: an older one if it is the same, else one that begins now."""
    same = before is not None and (before.kind, before.pid, before.received) == (
        kind,
        vitals.pid,
        vitals.received,
    )
    if before is None or not same:
        return Unhealthy(kind, vitals.pid, vitals.received, 0.0, snapshot.at)
    step = min(snapshot.at - before.at, MAX_STEP_SECONDS)
    if snapshot.late_seconds > LATE_TICK_SECONDS:
        step = 0.0
    return Unhealthy(kind, vitals.pid, vitals.received, before.seconds + step, snapshot.at)


def finds_broker_away(snapshot: Snapshot) -> bool:
    """Tell whether any worker says that its broker does not answer."""
    return any(view.vitals is not None and view.vitals.broker_answers is False for view in snapshot.pools)


def diagnose(pool: Pool, view: PoolView, vitals: Vitals) -> Fault | None:
    """Say what seems wrong with a worker at this look; one that drains or starts has a state of its own."""
    if view.state is PoolState.NOT_ANSWERING and pool.forks and not vitals.stopping and not is_traced(view):
        # Where tasks run in the main process, that may be busy with one.
        return "hangs"
    if view.state is PoolState.RUNNING and not view.holding and vitals.has_room and vitals.waiting:
        return "starves"
    return None


def is_traced(view: PoolView) -> bool:
    """Tell whether somebody has a debugger at a main process."""
    return view.main is not None and view.main.state == "t"


# On top of the seconds after which a worker that does not answer is said not to (observe/workers.py).
HANG_SECONDS = 30.0
STARVE_SECONDS = 40.0
OVERDUE_SECONDS = 10.0
TIME_OUT_AGAIN_SECONDS = 10.0


def restart_unhealthy(
    snapshot: Snapshot, state: PolicyState, settings: Settings
) -> KillWorker | ReplaceWorker | None:
    """The worker to end, and how: one that hangs is killed with its tree, for it hears nothing."""
    for pool in settings.pools:
        view, ailment, mend = (
            find_view(snapshot, pool.name),
            state.unhealthy.get(pool.name),
            state.restart_backoffs.get(pool.name),
        )
        if view is None or view.vitals is None or ailment is None:
            continue
        if mend is not None and is_recent(mend.at, snapshot.at, mend.pause_seconds):
            continue
        if ailment.kind == "hangs" and ailment.seconds >= HANG_SECONDS:
            kill = kill_hung(view, view.vitals, snapshot)
            if kill is not None:
                return kill
        elif ailment.kind == "starves" and ailment.seconds >= STARVE_SECONDS:
            if is_recent(state.replaced.get(pool.name), snapshot.at, RESTART_BACKOFF_SECONDS):
                continue
            return ReplaceWorker(pool=pool.name, reason=describe_starving(view.vitals, ailment))
    return None


def kill_hung(view: PoolView, vitals: Vitals, snapshot: Snapshot) -> KillWorker | None:
    """Return the end of a main process that hangs, and of all below it; None if it is gone already."""
    if view.main is None or view.main.pid != vitals.pid or view.main.is_defunct:
        return None
    children = [
        child for child in active_children(snapshot, view.name) if leader_parent(child) == view.main.pid
    ]
    # The main process first: it must not wake up to the deaths of the others.
    processes = (view.main, *(each for child in children for each in child.processes if not each.is_defunct))
    running = sum(child.task_id is not None for child in children)
    return KillWorker(
        pool=view.name,
        processes=processes,
        reason=(
            f"its main process {view.main.pid} has not answered for {snapshot.at - vitals.answered:.0f} s, "
            f"{describe_hang(view, vitals, snapshot)}; {format_count(running, 'task')} of it will run again"
        ),
    )


def describe_hang(view: PoolView, vitals: Vitals, snapshot: Snapshot) -> str:
    """Say how far it hangs."""
    if view.main is not None and view.main.state == "T":
        return "and is stopped (SIGSTOP)"
    if vitals.last_heartbeat is None or snapshot.at - vitals.last_heartbeat > HANG_SECONDS:
        return "no thread of it gives a sign of life"
    broker = ", and its broker answers" if vitals.broker_answers else ""
    return f"though another thread of it lives: its event loop stands still{broker}"


def describe_starving(vitals: Vitals, ailment: Unhealthy) -> str:
    """Say what it does not take."""
    return (
        f"it could take a task and took none for {ailment.seconds:.0f} s, while {vitals.waiting} wait in "
        f"{', '.join(sorted(vitals.consumes))}"
    )


def leader_parent(child: Child) -> int:
    """Return the parent's pid of a child's own process; 0 where that was not seen."""
    return next((each.parent for each in child.processes if each.pid == child.owner.pid), 0)


def end_overdue(snapshot: Snapshot, state: PolicyState) -> Iterator[EnforceTimeLimit]:
    """The children whose task has been past its hard time limit for long: their worker forgot to end it."""
    for child in snapshot.children:
        view = find_view(snapshot, child.owner.pool)
        if view is None or view.state is not PoolState.RUNNING or view.vitals is None or child.task_id is None:
            continue
        overdue = view.vitals.overdue.get(child.owner.pid, 0.0)
        if overdue < OVERDUE_SECONDS or leader_parent(child) != view.pid:
            continue
        if not is_recent(state.timed_out.get(child.owner), snapshot.at, TIME_OUT_AGAIN_SECONDS):
            yield EnforceTimeLimit(
                owner=child.owner,
                reason=f"{child.task_name} is {overdue:.0f} s past its hard time limit, and nobody ended it",
            )
