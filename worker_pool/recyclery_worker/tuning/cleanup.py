"""`python -m recyclery_worker.tuning.cleanup APP [--remove]`: what tunings that were killed left in Redis.

Prints a JSON list of their names and nothing else. Each tuning has a lease, as workers have: `recyclery:tunes`
is a sorted set, a tuning's name to the time, by Redis's clock, up to which it was known to live.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from recyclery_worker.broker.connection import connected, serve
from recyclery_worker.delivery.registry import Book, open_book
from recyclery_worker.tuning.messages import NAME, Space, remove_keys

TUNES = "recyclery:tunes"
LEASE_SECONDS = 30.0
RENEW_SECONDS = 5.0


def renew(book: Book, space: Space) -> None:
    """Say that a tuning lives, for the first time or again; raises redis.RedisError."""
    book.client.zadd(book.prefix + TUNES, {space.name: book.now() + LEASE_SECONDS})


def strike(book: Book, space: Space) -> int:
    """Remove all keys of a tuning, and itself; return how many keys that were. Raises redis.RedisError."""
    removed = remove_keys(book.client, space)
    # Last: a tuning that is listed no more has left nothing.
    book.client.zrem(book.prefix + TUNES, space.name)
    return removed


def list_dead(book: Book) -> list[Space]:
    """Return the tunings whose lease has run out; raises redis.RedisError."""
    found: Any = book.client.zrangebyscore(book.prefix + TUNES, "-inf", book.now())
    names = [name.decode() for name in found]
    return [Space(name) for name in names if NAME.fullmatch(name)]


def strike_dead(book: Book) -> list[Space]:
    """Remove what dead tunings left; return them. Raises redis.RedisError."""
    dead = list_dead(book)
    for space in dead:
        strike(book, space)
    return dead


def main() -> int:
    """Look, and remove if asked to."""
    name, *options = sys.argv[1:]

    def work(app: Any, answer: int) -> None:
        with connected(app) as channel:
            book = open_book(channel)
            dead = strike_dead(book) if "--remove" in options else list_dead(book)
        os.write(answer, msgspec.json.encode([space.name for space in dead]))

    return serve(name, work, else_say="the app's broker is not Redis, where nothing is tuned")


if __name__ == "__main__":
    sys.exit(main())
