"""Gives the messages that a dead generation holds back to the head of their queues.

`python -m recyclery_worker.delivery.reclaim APP [--give-back]`: what dead workers hold, nobody returned. Living
workers do this by themselves; it is for when none is left. Prints a JSON list of `Forgotten` and nothing else.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

import msgspec

from recyclery_worker.broker.connection import connected, serve
from recyclery_worker.delivery.registry import LEASE_SECONDS, Book, Generation, open_book
from recyclery_worker.parking.deaths import note_deaths


def reclaim(app: Any, generation: Generation) -> int:
    """Give back all that a generation holds, and strike it; return how many messages that were.

    Its worker must be dead, or have lost its lease. Any number may do it at once, and any of them may die: each
    message moves in one transaction (kombu/transport/redis.py, QoS.restore_by_tag). Raises what kombu and redis
    raise when Redis is away.
    """
    with connected(app, **generation.keys) as channel:
        book = open_book(channel)
        tags = book.held_tags(generation)
        if tags:
            book.fence(generation)
            tags = book.held_tags(generation)
            note_deaths(channel, generation.id, generation.node, tags)
        for tag in tags:
            # The newest first: tasks are taken from the right, and there the oldest is to be outermost.
            channel.qos.restore_by_tag(tag, leftmost=False)
        book.strike(generation)
    return len(tags)


class Forgotten(msgspec.Struct, frozen=True):
    """A dead worker, and how many messages it had in hand."""

    generation: str
    node: str
    pid: int
    messages: int


def find_forgotten(book: Book) -> dict[Forgotten, Generation]:
    """Return the dead workers that nobody has taken the messages of; none that has a valid lease."""
    dead = {generation.id: generation for generation in [*book.list_unwritten(), *book.list_dead()]}
    return {Forgotten(each.id, each.node, each.pid, len(book.held_tags(each))): each for each in dead.values()}


def give_back(app: Any) -> list[Forgotten]:
    """Give back what is forgotten; return it. Raises what kombu and redis raise when Redis is away.

    After Redis was away all leases look old: whoever lives has as long as a lease to renew his.
    """
    with connected(app) as channel:
        book = open_book(channel)
        before = find_forgotten(book)
        if not before:
            return []
        time.sleep(LEASE_SECONDS)
        still = {each.generation for each in find_forgotten(book)}
    given_back = {forgotten: each for forgotten, each in before.items() if each.id in still}
    for each in given_back.values():
        reclaim(app, each)
    return list(given_back)


def main() -> int:
    """Look, and give back if asked to."""
    name, *options = sys.argv[1:]

    def work(app: Any, answer: int) -> None:
        if "--give-back" in options:
            found = give_back(app)
        else:
            with connected(app) as channel:
                found = list(find_forgotten(open_book(channel)))
        os.write(answer, msgspec.json.encode(found))

    return serve(name, work, else_say="the app's broker is not Redis, and gives back by itself")


if __name__ == "__main__":
    sys.exit(main())
