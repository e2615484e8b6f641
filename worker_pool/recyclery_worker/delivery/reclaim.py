"""`python -m recyclery_worker.delivery.reclaim APP [--give-back]`: list, or give back, what dead workers hold.

Living workers give it back by themselves; the program is for when none is left. It prints a JSON list of
`OrphanedLease`. With `--dead ID...` it gives back at once what these hold, whose processes are dead.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from recyclery_worker.broker.connection import connected, end_with, run_program
from recyclery_worker.delivery.registry import LEASE_SECONDS, Generation, Registry, open_registry

LOOKS = 10


class OrphanedLease(msgspec.Struct, frozen=True):
    """A dead worker, and how many messages it holds."""

    generation: str
    node: str
    pid: int
    messages: int


def find_orphaned(registry: Registry) -> list[OrphanedLease]:
    """Return the workers without a valid lease, which seem to be dead, and whose messages nobody has taken."""
    dead = {each.id: each for each in [*registry.list_unregistered(), *registry.list_expired()]}.values()
    return [describe(registry, each) for each in dead]


def describe(registry: Registry, dead: Generation) -> OrphanedLease:
    return OrphanedLease(dead.id, dead.node, dead.pid, registry.count_held(dead))


def collect_leases(registry: Registry) -> Mapping[str, float | None]:
    """Return all leases, and None for what is not registered."""
    return {each.id: None for each in registry.list_unregistered()} | registry.leases()


def give_back_orphaned(app: Any) -> list[OrphanedLease]:
    """Give back the messages of dead workers; return these workers.

    It waits for as long as a lease, unless all are renewed before. Raises what kombu and redis raise when Redis
    is away.
    """
    from recyclery_worker.delivery.lease import reclaim  # noqa: PLC0415  # all of a worker: not for a list

    with connected(app) as channel:
        registry = open_registry(channel)
        first = collect_leases(registry)
        suspects = set(first)
        for _ in range(LOOKS):
            if suspects:
                time.sleep(LEASE_SECONDS / LOOKS)
                leases = collect_leases(registry)
                suspects = {each for each in suspects & leases.keys() if leases[each] in {None, first[each]}}
        unregistered = {each.id: each for each in registry.list_unregistered()}
        dead = [found for each in suspects if (found := unregistered.get(each) or registry.find(each))]
        given_back = [describe(registry, each) for each in dead]
    for each in dead:
        reclaim(app, each)
    return given_back


def give_back_dead(app: Any, generations: Iterable[str]) -> list[OrphanedLease]:
    """Give back the messages of workers that a stop has killed; return these workers."""
    from recyclery_worker.delivery.lease import reclaim  # noqa: PLC0415

    with connected(app) as channel:
        registry = open_registry(channel)
        dead = [found for each in generations if (found := registry.find(each)) is not None]
        described = [describe(registry, each) for each in dead]
    for each in dead:
        # What a stop cuts off has not died.
        reclaim(app, each, counts_deaths=False)
    return described


def main() -> int:
    name, *options = sys.argv[1:]

    def work(app: Any, output: int) -> None:
        if "--give-back" in options:
            found = give_back_orphaned(app)
        elif "--dead" in options:
            found = give_back_dead(app, options[1:])
        else:
            with connected(app) as channel:
                found = find_orphaned(open_registry(channel))
        os.write(output, msgspec.json.encode(found))

    return run_program(name, work, without_redis="the app's broker is not Redis, and gives back by itself")


if __name__ == "__main__":
    end_with(main)
