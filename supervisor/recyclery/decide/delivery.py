"""Deaths and deliveries: messages of dead workers return to their queues, deaths go into the task's history.

ReclaimMessages: a worker's main process and all of its children are dead. At once; its lease would expire too,
    but later. Needs any live worker. The tasks run again.
ReportDeath: a child died during a task. The worker counts it for `max_task_deaths`. Costs nothing.
"""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace

from recyclery.decide.actions import ReclaimMessages, ReportDeath
from recyclery.decide.policy_state import LeaseOwner, PolicyState
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from recyclery_worker.link import DeathReport

PREEMPTED = "preempted by the supervisor, before memory ran out"
OUT_OF_MEMORY = "killed by the kernel for want of memory"


def update_lease_owners(
    owners: Mapping[str, LeaseOwner], snapshot: Snapshot, reports: Iterable[LeaseOwner]
) -> dict[str, LeaseOwner]:
    """Return the lease owners by generation: present reports merged with workers that may still hold messages.

    The children of a living worker are those it reports and those observed; a dead one keeps its last known.
    """
    reported = {report.generation: report for report in reports if report.generation}
    updated = {key: owner for key, owner in owners.items() if key in reported or not owner.given_back}
    for generation, report in reported.items():
        updated.setdefault(generation, report)
    for generation, owner in updated.items():
        main = find_main(snapshot, owner)
        if main is not None:
            place = main.name, main.slot
            seen = {each.owner.pid for each in snapshot.children if (each.owner.pool, each.slot) == place}
            known = reported[generation].children if generation in reported else frozenset()
            updated[generation] = replace(owner, children=known | seen)
    return updated


def reclaim_dead(snapshot: Snapshot, state: PolicyState) -> Iterator[ReclaimMessages]:
    """Yield the lease owners that are wholly dead, each with a live worker to return its messages."""
    owners = state.lease_owners.values()
    living = {child.owner.pid for child in snapshot.children}
    # Only a worker that has reported its generation is up.
    up = {(owner.pool, owner.pid) for owner in owners}
    live = (view for view in snapshot.workers if view.state.takes_requests and (view.name, view.pid) in up)
    if (worker := next(live, None)) is None:
        return
    for owner in owners:
        if not owner.given_back and find_main(snapshot, owner) is None and not owner.children & living:
            reason = f"its main process {owner.pid} and all of its children are dead"
            yield ReclaimMessages(owner.pool, owner.generation, worker.slot, reason)


def find_main(snapshot: Snapshot, owner: LeaseOwner) -> PoolView | None:
    """Return the worker that owns the lease, in whichever slot; None where it is dead."""
    key = owner.pool, owner.pid
    return next((view for view in snapshot.workers if (view.name, view.pid) == key), None)


def find_child_deaths(before: Snapshot, snapshot: Snapshot, preempted: Set[Owner]) -> dict[Owner, DeathReport]:
    """Return the children that had a task in the snapshot before and are gone.

    A child whose task had just ended is among them; its worker ignores the report.
    """
    living = {child.owner for child in snapshot.children}
    oom = OUT_OF_MEMORY if snapshot.container.oom_kills > before.container.oom_kills else ""
    return {
        child.owner: DeathReport(
            pid=child.owner.pid,
            task_id=child.task_id,
            tree_bytes=child.tree_bytes,
            how=PREEMPTED if child.owner in preempted else oom,
        )
        for child in before.children
        if child.owner not in living and child.task_id is not None
    }


def report_deaths(snapshot: Snapshot, deaths: Mapping[Owner, DeathReport]) -> Iterator[ReportDeath]:
    """Yield a report to the active worker of each child's pool, else to any other that answers."""
    slots = {
        view.name: view.slot
        for view in snapshot.pools
        # A child may have died with its worker, and the next worker does not answer at once.
        if view.state.takes_requests and view.vitals and view.main and not view.main.is_defunct
    }
    for owner, death in deaths.items() if slots else ():
        yield ReportDeath(through=slots.get(owner.pool) or next(iter(slots.values())), death=death)
