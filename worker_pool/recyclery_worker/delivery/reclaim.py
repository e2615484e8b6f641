"""`python -m recyclery_worker.delivery.reclaim APP [--give-back]`: list, or give back, what dead workers hold.

Living workers give it back by themselves; the program is for when none is left. It prints a JSON list of
`OrphanedLease`.
"""

import os
import sys
import time
from typing import Any

import msgspec

from recyclery_worker.broker.connection import connected, run_program
from recyclery_worker.delivery.registry import LEASE_SECONDS, Generation, Registry, open_registry


class OrphanedLease(msgspec.Struct, frozen=True):
    """A dead worker, and how many messages it holds."""

    generation: str
    node: str
    pid: int
    messages: int


def find_orphaned(registry: Registry) -> dict[OrphanedLease, Generation]:
    """Return the dead workers whose messages nobody has taken; none that has a valid lease."""
    dead = {each.id: each for each in [*registry.list_unregistered(), *registry.list_dead()]}.values()
    return {OrphanedLease(each.id, each.node, each.pid, len(registry.held_tags(each))): each for each in dead}


def give_back_orphaned(app: Any) -> list[OrphanedLease]:
    """Give back the messages of dead workers; return these workers.

    After Redis was away all leases look expired: living workers get the time of one lease to renew theirs.
    Raises what kombu and redis raise when Redis is away.
    """
    from recyclery_worker.delivery.lease import reclaim  # noqa: PLC0415  # all of a worker: not for a list

    with connected(app) as channel:
        registry = open_registry(channel)
        if not (before := find_orphaned(registry)):
            return []
        time.sleep(LEASE_SECONDS)
        still = {each.generation for each in find_orphaned(registry)}
    given_back = {orphaned: each for orphaned, each in before.items() if each.id in still}
    for each in given_back.values():
        reclaim(app, each)
    return list(given_back)


def main() -> int:
    name, *options = sys.argv[1:]

    def work(app: Any, output: int) -> None:
        if "--give-back" in options:
            found = give_back_orphaned(app)
        else:
            with connected(app) as channel:
                found = [*find_orphaned(open_registry(channel))]
        os.write(output, msgspec.json.encode(found))

    return run_program(name, work, without_redis="the app's broker is not Redis, and gives back by itself")


if __name__ == "__main__":
    sys.exit(main())
