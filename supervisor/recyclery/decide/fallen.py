"""Children that died with a task in hand: what was seen of them goes into the task's own history."""

from __future__ import annotations

from collections.abc import Iterator, Set

from recyclery.decide.actions import TellFell
from recyclery.decide.holders import TAKES_REQUESTS
from recyclery.decide.policy_state import Fallen
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery_worker.link import Fell

PREEMPTED = "preempted by the supervisor, before memory ran out"
OUT_OF_MEMORY = "killed by the kernel for want of memory"


def find_fallen(before: Snapshot, snapshot: Snapshot, preempted: Set[Owner]) -> tuple[Fallen, ...]:
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
        found.append(Fallen(child.owner.pool, fell))
    return tuple(found)


def tell_fallen(snapshot: Snapshot, fallen: tuple[Fallen, ...]) -> Iterator[TellFell]:
    """Tell the worker that serves the child's pool, else any other."""
    listening = {view.name: view.slot for view in snapshot.pools if view.state in TAKES_REQUESTS}
    for each in fallen:
        if listening:
            through = listening.get(each.pool) or next(iter(listening.values()))
            yield TellFell(through=through, fell=each.fell)
