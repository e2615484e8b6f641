"""`python -m recyclery_worker.tuning.cleanup APP [--remove]`: what tunings that were killed left in Redis.

Prints a JSON list of their names and nothing else.
"""

from __future__ import annotations

import os
import sys
from typing import Any

import msgspec

from recyclery_worker.broker.subprocess_protocol import serve
from recyclery_worker.delivery.registry import connected, open_book
from recyclery_worker.tuning.registry import list_dead, strike_dead


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
