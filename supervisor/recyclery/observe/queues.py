"""Queue depths, read from Redis; on another broker they are not known."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

import redis

log = logging.getLogger("recyclery")

WAIT_SECONDS = 1.0
# kombu's Redis transport keeps each priority step of a queue in a list of its own (kombu/transport/redis.py).
PRIORITY_SEPARATOR = "\x06\x16"
PRIORITY_STEPS = ("", "3", "6", "9")


class Queues:
    """Asks Redis how many messages wait. Blocks: call it in a thread."""

    def __init__(self, broker_url: str) -> None:
        self._client = open_client(broker_url)

    def answers(self) -> bool:
        """Tell whether Redis answers; true where another broker is used, for that is not asked."""
        try:
            return self._client is None or bool(self._client.ping())
        except (redis.RedisError, OSError, TypeError, ValueError):
            return False

    def depth(self, queues: Iterable[str]) -> int | None:
        """Return the messages waiting in all of the queues; None when Redis is away or not the broker."""
        if self._client is None:
            return None
        try:
            pipe = self._client.pipeline(transaction=False)
            for queue in queues:
                for step in PRIORITY_STEPS:
                    pipe.llen(f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue)
            lengths: list[int] = pipe.execute()
            return sum(lengths)
        except (redis.RedisError, OSError, TypeError, ValueError):
            return None


def open_client(broker_url: str) -> redis.Redis | None:
    """Return a client, not yet connected; None for another broker, or a URL that only Celery understands."""
    if not broker_url.startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
        return None
    url = broker_url.replace("redis+socket://", "unix://", 1)
    # kombu's words for what redis-py calls otherwise.
    url = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda match: f"ssl_cert_reqs={match[1].lower()}", url)
    url = re.sub(r"([?&])virtual_host=/?", r"\1db=", url)
    try:
        return redis.Redis.from_url(url, socket_timeout=WAIT_SECONDS, socket_connect_timeout=WAIT_SECONDS)
    except (redis.RedisError, TypeError, ValueError) as error:
        # Not its text: the URL may be in it, with the password.
        log.warning("queue depths cannot be read: the broker's URL gives a %s", type(error).__name__)
        return None
