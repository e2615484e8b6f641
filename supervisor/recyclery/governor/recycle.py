"""`recycle`: whether a pool's worker can be replaced now, and how far that is."""

from __future__ import annotations

from collections import Counter

import msgspec

from recyclery.decide.budget import count, find_view
from recyclery.decide.handoff import find_successor
from recyclery.decide.policy_state import PolicyState
from recyclery.observe.active_worker import is_up
from recyclery.observe.snapshot import PoolView, Snapshot


class Recycling(msgspec.Struct):
    """How a pool's worker is, and what is waited for; `going_on` while it is to be replaced.

    `failure` says why the last replacement came to nothing.
    """

    slot: str
    pid: int | None
    state: str
    going_on: bool
    waits_for: str
    failure: str = ""


def why_not(pool: str, snapshot: Snapshot, state: PolicyState) -> str | None:
    """Say why a pool's worker cannot be replaced now; None where it can be."""
    view = find_view(snapshot, pool)
    if view is None:
        known = ", ".join(view.name for view in snapshot.pools)
        return f"{pool!r} is no pool: there are {known}"
    if state.is_being_replaced(pool) or find_successor(view, snapshot) is not None:
        return f"{pool} is being replaced already: {tell_what_is_waited_for(view, snapshot)}"
    former = next((other for other in snapshot.others if other.name == pool), None)
    if former is not None:
        return f"{pool} was replaced just now, and its former worker still {tell_drain(former, snapshot)}"
    if view.state == "draining":
        return f"{pool} is being replaced already: it {tell_drain(view, snapshot)}"
    if not is_up(view) or view.state == "starting":
        return f"{pool} is {view.state}: there is no worker that takes tasks to be replaced"
    return None


def tell_recycling(pool: str, snapshot: Snapshot, state: PolicyState) -> Recycling | None:
    """Return how far a pool's replacement is; None where there is no such pool."""
    view = find_view(snapshot, pool)
    if view is None:
        return None
    going_on = (
        state.is_being_replaced(pool)
        or find_successor(view, snapshot) is not None
        or view.state in {"draining", "starting", "stopped"}
    )
    return Recycling(
        slot=view.slot,
        pid=view.pid,
        state=view.state,
        going_on=going_on,
        waits_for=tell_what_is_waited_for(view, snapshot) if going_on else tell_rest(view, snapshot),
        failure=state.failures.get(pool, ""),
    )


def tell_what_is_waited_for(view: PoolView, snapshot: Snapshot) -> str:
    """Say what has to come before a pool has a new worker."""
    successor = find_successor(view, snapshot)
    if successor is not None:
        return f"{successor.slot} (pid {successor.pid}) starts, and {view.slot} takes tasks until that does"
    if view.state == "draining":
        return f"{view.slot} {tell_drain(view, snapshot)}; then it starts anew"
    if view.state in {"starting", "stopped"}:
        return f"{view.slot} starts"
    return "for its turn"


def tell_rest(view: PoolView, snapshot: Snapshot) -> str:
    """Say who takes tasks now, and what is left to do for the one before."""
    now = f"{view.node or view.slot} (pid {view.pid}) takes tasks"
    former = next((other for other in snapshot.others if other.name == view.name), None)
    return now if former is None else f"{now}; {former.slot} {tell_drain(former, snapshot)}"


def tell_drain(view: PoolView, snapshot: Snapshot) -> str:
    """Say what a worker that drains still has to do."""
    tasks = Counter(
        child.task_name or "?"
        for child in snapshot.children
        if (child.owner.pool, child.slot) == (view.name, view.slot) and child.task_id is not None
    )
    if not tasks:
        return "drains, and has no task any more"
    return f"drains {count(tasks.total(), 'task')}: {', '.join(sorted(tasks))}"
