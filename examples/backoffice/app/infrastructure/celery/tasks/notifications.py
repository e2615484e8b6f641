"""Notifications: written by other tasks, sent by this one."""

import json
from typing import cast

from app.infrastructure.celery import app
from app.infrastructure.redis_client import redis_client

PENDING_KEY = "backoffice:notifications:pending"
SENT_KEY = "backoffice:notifications:sent"
MAX_PER_RUN = 100
MAX_SENT_KEPT = 1000


def queue_notification(recipient: str, text: str) -> None:
    """Put a notification in the list that `process_pending` empties."""
    redis_client().rpush(PENDING_KEY, json.dumps({"to": recipient, "text": text}))


@app.task
def process_pending() -> int:
    """Send up to 100 pending notifications, oldest first, and return how many were sent.

    "Sent" is moved from one Redis list to the other: one step, so that a worker's death in between
    neither loses a notification nor sends it twice.
    """
    client = redis_client()
    sent = 0
    while sent < MAX_PER_RUN and client.lmove(PENDING_KEY, SENT_KEY, "LEFT", "RIGHT") is not None:
        sent += 1
    client.ltrim(SENT_KEY, -MAX_SENT_KEPT, -1)
    return sent


def list_sent() -> list[dict[str, str]]:
    """List the notifications sent, oldest first, as {"to", "text"}."""
    return [json.loads(entry) for entry in cast(list[str], redis_client().lrange(SENT_KEY, 0, -1))]
