"""`python -m recyclery_worker.tuned.leftovers APP [--remove]`: what tunings that were killed left in Redis.

Prints a JSON list of their names and nothing else. Exits as `recyclery_worker.delivery.forgotten` does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import msgspec
from celery.app.utils import find_app

from recyclery_worker.delivery.forgotten import CANNOT_IMPORT, NO_ANSWER, NOT_REDIS, refuse
from recyclery_worker.delivery.generations import connected, open_book
from recyclery_worker.tuned.registry import list_dead, strike_dead


def main() -> int:
    """Look, and remove if asked to."""
    name, *options = sys.argv[1:]
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        app = find_app(name)
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        return refuse(CANNOT_IMPORT, f"{type(error).__name__}: {error}")
    try:
        with app.connection_for_write() as connection:
            if connection.transport.driver_type != "redis":
                return refuse(NOT_REDIS, "the app's broker is not Redis, where nothing is tuned")
        with connected(app) as channel:
            book = open_book(channel)
            dead = strike_dead(book) if "--remove" in options else list_dead(book)
    except Exception as error:  # kombu and redis raise errors of many kinds
        return refuse(NO_ANSWER, f"{type(error).__name__}: {error}")
    os.write(answer, msgspec.json.encode([space.name for space in dead]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
