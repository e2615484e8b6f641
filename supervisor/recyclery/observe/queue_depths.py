"""The queue depth of each pool: as its worker reports it, else from Redis; unknown with another broker.

The Redis client is imported when it is first used: it costs 10 MB.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from recyclery.config.settings import Pool
from recyclery.observe.snapshot import Snapshot

if TYPE_CHECKING:
    import redis

log = logging.getLogger("recyclery")

BROKER_TIMEOUT_SECONDS = 1.0
# kombu's Redis transport keeps each priority step of a queue in a list of its own (kombu/transport/redis.py).
PRIORITY_SEPARATOR = "\x06\x16"
PRIORITY_STEPS = ("", "3", "6", "9")


class Broker:
    """The pools' broker. Each call blocks: call it in a thread."""

    def __init__(self, url: str) -> None:
        self._urls = url.split(";")  # more than one where the app has a list (failover)

    def answers(self) -> bool:
        """Return whether Redis answers; True for another broker."""
        return not self._clients or bool(self._ask(lambda client: client.ping()))

    def depth(self, queues: Iterable[str]) -> int | None:
        """Return how many messages wait in the queues together; None where Redis is away or not the broker."""
        names = tuple(queues)

        def count(client: redis.Redis) -> int:
            pipe = client.pipeline(transaction=False)
            for queue in names:
                for step in PRIORITY_STEPS:
                    pipe.llen(f"{queue}{PRIORITY_SEPARATOR}{step}" if step else queue)
            return sum(pipe.execute())

        depth: int | None = self._ask(count)
        return depth

    @cached_property
    def _clients(self) -> list[redis.Redis]:
        return [client for url in self._urls if (client := open_client(url)) is not None]

    def _ask(self, request: Callable[[redis.Redis], Any]) -> Any:
        """Return what the first Redis that answers says; None where none does."""
        for client in self._clients:
            answer = ask_redis(partial(request, client))
            # It is asked only where no worker reports, so nothing is kept open until then.
            client.connection_pool.disconnect(inuse_connections=False)
            if answer is not None:
                return answer
        return None


def ask_redis(request: Callable[[], Any]) -> Any:
    """Return what Redis answers; None where it does not."""
    import redis  # noqa: PLC0415

    try:
        return request()
    except (redis.RedisError, OSError, TypeError, ValueError):
        return None


def open_client(broker_url: str) -> redis.Redis | None:
    """Return a client, not yet connected; None for another broker, or a URL that only Celery understands."""
    if not broker_url.startswith(("redis://", "rediss://", "unix://", "redis+socket://")):
        return None
    import redis  # noqa: PLC0415

    url = broker_url.replace("redis+socket://", "unix://", 1)
    # kombu's names for options of redis-py.
    url = re.sub(r"ssl_cert_reqs=CERT_(\w+)", lambda match: f"ssl_cert_reqs={match[1].lower()}", url)
    url = re.sub(r"([?&])virtual_host=/?", r"\1db=", url)
    try:
        return redis.Redis.from_url(
            url, socket_timeout=BROKER_TIMEOUT_SECONDS, socket_connect_timeout=BROKER_TIMEOUT_SECONDS
        )
    except (redis.RedisError, TypeError, ValueError) as error:
        # Not the error's text, which may contain the URL with its password.
        log.warning("queue depths cannot be read: the broker's URL gives a %s", type(error).__name__)
        return None


def read_depths(pools: Iterable[Pool], snapshot: Snapshot, broker: Broker) -> dict[str, int | None]:
    """Return the depths by pool, None where unknown; may ask the broker, so not on the event loop."""
    reported = {view.name: view.queue_depth for view in snapshot.pools if view.queue_depth is not None}
    return reported | {pool.name: broker.depth(pool.queues) for pool in pools if pool.name not in reported}
