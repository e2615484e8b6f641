"""Who holds messages: each worker under its generation, and what is to be given back when all of it is dead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from recyclery.decide.actions import Reclaim
from recyclery.decide.past import Holder, Past
from recyclery.observe.snapshot import PoolView, Snapshot

# One that has said its generation is up, whether or not PID 1 has waited long enough to call it running.
TAKES_REQUESTS = frozenset({"starting", "running"})


def follow_holders(
    holders: Mapping[str, Holder], snapshot: Snapshot, generations: Mapping[tuple[str, int], str]
) -> dict[str, Holder]:
    """Return the holders by generation, those of living workers with the children they have now.

    `generations` are the workers' own word, by pool and main process.
    """
    followed = dict(holders)
    for view in snapshot.pools:
        generation = generations.get((view.name, view.pid)) if view.pid is not None else None
        if generation and view.pid is not None:
            followed.setdefault(generation, Holder(generation, view.name, view.pid))
    for generation, holder in followed.items():
        if any(is_main(view, holder) for view in snapshot.pools):
            children = frozenset(child.owner for child in snapshot.children if child.owner.pool == holder.pool)
            followed[generation] = replace(holder, children=children)
    return followed


def reclaim_dead(snapshot: Snapshot, past: Past) -> Iterator[Reclaim]:
    """The generations whose main process and children are all dead, each with a worker to do it.

    A lease would run out too: this is sooner, and certain that nothing of them runs any more.
    """
    living = {child.owner for child in snapshot.children}
    through = next(
        (
            view.name
            for view in snapshot.pools
            if view.state in TAKES_REQUESTS and any(is_main(view, holder) for holder in past.holders.values())
        ),
        None,
    )
    if through is None:
        return
    for holder in past.holders.values():
        if any(is_main(view, holder) for view in snapshot.pools) or holder.children & living:
            continue
        yield Reclaim(
            pool=holder.pool,
            generation=holder.generation,
            through=through,
            reason=f"its main process {holder.pid} and all of its children are dead",
        )


def is_main(view: PoolView, holder: Holder) -> bool:
    """Tell whether a pool's main process is still this holder's."""
    return view.name == holder.pool and view.pid == holder.pid
