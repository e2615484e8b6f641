"""Who holds messages: each worker under its generation, and what is to be given back when all of it is dead."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import replace

from recyclery.decide.actions import ReclaimMessages, ReportDeath
from recyclery.decide.policy_state import ChildDeath, LeaseOwner, PolicyState
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from recyclery_worker.link import Fell

# One that has said its generation is up, whether or not PID 1 has waited long enough to call it running.


def update_lease_owners(
    holders: Mapping[str, LeaseOwner], snapshot: Snapshot, words: Iterable[LeaseOwner]
) -> dict[str, LeaseOwner]:
    """Return the holders by generation: those that spoke (`words`), and those before that may still hold some.

    One that spoke and died at once was never seen: its own word of its children has to do.
    """
    spoken = {word.generation: word for word in words if word.generation}
    followed = {
        generation: holder
        for generation, holder in holders.items()
        if generation in spoken or not holder.given_back
    }
    for generation, word in spoken.items():
        followed.setdefault(generation, word)
    for generation, holder in followed.items():
        main = find_main(snapshot, holder)
        if main is not None:
            seen = {
                child.owner.pid
                for child in snapshot.children
                if (child.owner.pool, child.slot) == (main.name, main.slot)
            }
            heard = spoken[generation].children if generation in spoken else frozenset()
            followed[generation] = replace(holder, children=heard | seen)
    return followed


def reclaim_dead(snapshot: Snapshot, state: PolicyState) -> Iterator[ReclaimMessages]:
    """The generations whose main process and children are all dead, each with a worker to do it.

    A lease would run out too: this is sooner, and certain that nothing of them runs any more.
    """
    living = {child.owner.pid for child in snapshot.children}
    through = next(
        (
            view.slot
            for view in snapshot.workers
            if view.state.takes_requests
            and any(is_main(view, holder) for holder in state.lease_owners.values())
        ),
        None,
    )
    if through is None:
        return
    for holder in state.lease_owners.values():
        if holder.given_back or find_main(snapshot, holder) is not None:
            continue
        if holder.children & living:
            continue
        yield ReclaimMessages(
            pool=holder.pool,
            generation=holder.generation,
            through=through,
            reason=f"its main process {holder.pid} and all of its children are dead",
        )


def find_main(snapshot: Snapshot, holder: LeaseOwner) -> PoolView | None:
    """Return the worker that this holder is, in whichever slot; None where it is dead."""
    return next((view for view in snapshot.workers if is_main(view, holder)), None)


def is_main(view: PoolView, holder: LeaseOwner) -> bool:
    """Tell whether a pool's main process is still this holder's."""
    return view.name == holder.pool and view.pid == holder.pid


PREEMPTED = "preempted by the supervisor, before memory ran out"
OUT_OF_MEMORY = "killed by the kernel for want of memory"


def find_child_deaths(before: Snapshot, snapshot: Snapshot, preempted: Set[Owner]) -> tuple[ChildDeath, ...]:
    """Compare two looks; one whose task had just ended is among them, and means nothing to its worker."""
    living = {child.owner for child in snapshot.children}
    for_memory = snapshot.container.oom_kills > before.container.oom_kills
    found = []
    for child in before.children:
        if child.owner in living or child.task_id is None:
            continue
        how = OUT_OF_MEMORY if for_memory else ""
        if child.owner in preempted:
            how = PREEMPTED
        fell = Fell(pid=child.owner.pid, task_id=child.task_id, tree_bytes=child.tree_bytes, how=how)
        found.append(ChildDeath(child.owner.pool, fell))
    return tuple(found)


def report_deaths(snapshot: Snapshot, fallen: tuple[ChildDeath, ...]) -> Iterator[ReportDeath]:
    """Tell the worker that serves the child's pool, else any other."""
    listening = {view.name: view.slot for view in snapshot.pools if view.state.takes_requests}
    for each in fallen:
        if listening:
            through = listening.get(each.pool) or next(iter(listening.values()))
            yield ReportDeath(through=through, death=each.death)
