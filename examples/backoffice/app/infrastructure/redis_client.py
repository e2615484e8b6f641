"""The process's own Redis client."""

import os

from redis import Redis

from app.settings import redis_url

_clients: dict[int, Redis] = {}


def redis_client() -> Redis:
    """Give this process's client, made at the first call; answers are text, not bytes.

    Kept by process id: a client made before a fork shares its socket with the parent, and two
    processes that read from one socket get each other's answers.
    """
    process_id = os.getpid()
    if process_id not in _clients:
        _clients.clear()
        _clients[process_id] = Redis.from_url(redis_url(), decode_responses=True)
    return _clients[process_id]
