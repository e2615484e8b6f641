"""Queue depths, read from Redis; on another broker they are not known."""

from __future__ import annotations

from collections.abc import Iterable

import redis

WAIT_SECONDS = 1.0
# kombu's Redis transport keeps each priority step of a queue in a list of its own (kombu/transport/redis.py).
PRIORITY_SEPARATOR = "\x06\x16"
PRIORITY_STEPS = ("", "3", "6", "9")


class Queues:
    """Asks Redis how many messages wait. Blocks: call it in a thread."""

    def __init__(self, broker_url: str) -> None:
        self._client: redis.Redis | None = None
        if broker_url.startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
            self._client = redis.Redis.from_url(
                broker_url.replace("redis+socket://", "unix://", 1),
                socket_timeout=WAIT_SECONDS,
                socket_connect_timeout=WAIT_SECONDS,
            )

    def answers(self) -> bool:
        """Tell whether Redis answers; true where another broker is used, for that is not asked."""
        try:
            return self._client is None or bool(self._client.ping())
        except (redis.RedisError, OSError):
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
        except (redis.RedisError, OSError):
            return None
