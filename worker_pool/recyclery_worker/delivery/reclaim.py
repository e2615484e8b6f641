"""Gives the messages that a dead generation holds back to the head of their queues."""

from __future__ import annotations

from typing import Any

from recyclery_worker.delivery.registry import Generation, connected, open_book
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
            note_deaths(channel, generation, tags)
        for tag in tags:
            # The newest first: tasks are taken from the right, and there the oldest is to be outermost.
            channel.qos.restore_by_tag(tag, leftmost=False)
        book.strike(generation)
    return len(tags)
