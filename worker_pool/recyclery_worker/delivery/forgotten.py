"""`python -m recyclery_worker.delivery.forgotten APP [--give-back]`: what dead workers hold, nobody returned.

Living workers do this by themselves; it is for when none is left. Prints a JSON list of `Forgotten` and nothing
else. Exits with the reason on standard error: 1 when the app cannot be imported, 3 when its broker is another
than Redis, 4 when that does not answer.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from recyclery_worker.delivery.generations import LEASE_SECONDS, Book, Generation, connected, open_book
from recyclery_worker.delivery.reclaim import reclaim

CANNOT_IMPORT, NOT_REDIS, NO_ANSWER = 1, 3, 4


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
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    from celery.app.utils import find_app  # noqa: PLC0415

    try:
        app = find_app(name)
        app.loader.import_default_modules()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        return refuse(CANNOT_IMPORT, f"{type(error).__name__}: {error}")
    try:
        with app.connection_for_write() as connection:
            if connection.transport.driver_type != "redis":
                return refuse(NOT_REDIS, "the app's broker is not Redis, and gives back by itself")
        if "--give-back" in options:
            found = give_back(app)
        else:
            with connected(app) as channel:
                found = list(find_forgotten(open_book(channel)))
    except Exception as error:  # kombu and redis raise errors of many kinds
        return refuse(NO_ANSWER, f"{type(error).__name__}: {error}")
    os.write(answer, msgspec.json.encode(found))
    return 0


def refuse(status: int, reason: str) -> int:
    """Say why on standard error; return the exit status."""
    print(reason, file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
