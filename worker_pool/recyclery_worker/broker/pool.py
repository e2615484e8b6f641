"""One pool of connections to Redis for each of kombu's channels, where kombu has two.

By itself a channel opens a connection of the pool that it waits for messages on, to see whether Redis answers,
and leaves it open; what it sends goes over another pool. A channel that waits for nothing, as those for events,
replies and our own requests, has a connection then that is never used again.
"""

from typing import Any

from kombu.transport import redis


def share_pools() -> None:
    """Have channels use the pool that they wait for messages on for all else too."""
    kind: Any = redis.Channel
    kind.pool = kind.async_pool = property(shared_pool)


def shared_pool(channel: Any) -> Any:
    if channel._async_pool is None:
        pool = channel._get_pool(asynchronous=True)
        # As many as the two together (`max_connections` may be 1), and the one that tells of changed queues.
        pool.max_connections = 2 * pool.max_connections + 1
        channel._async_pool = pool
    return channel._async_pool
