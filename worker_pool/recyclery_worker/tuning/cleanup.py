"""Finds and removes what tunings that were killed left in Redis.

Each tuning has a lease, like a worker: `recyclery:tunes` is a sorted set, a tuning's name to the time, by
Redis's clock, until which its lease is valid. `python -m recyclery_worker.tuning.cleanup APP [--remove]` prints
the names of dead tunings as a JSON list.
"""

import os
import sys
from itertools import islice
from typing import Any

import msgspec

from recyclery_worker.broker.connection import connected, end_with, run_program
from recyclery_worker.delivery.registry import Registry, escape_pattern, open_registry
from recyclery_worker.tuning.messages import SPACE_NAME, Space

TUNES = "recyclery:tunes"
TUNING_LEASE_SECONDS = 30.0
TUNING_RENEW_SECONDS = 5.0
KEYS_AT_A_TIME = 500


def renew(registry: Registry, space: Space) -> None:
    """Write or renew a tuning's lease; raises redis.RedisError."""
    registry.client.zadd(registry.prefix + TUNES, {space.name: registry.now() + TUNING_LEASE_SECONDS})


def remove_keys(client: Any, space: Space) -> int:
    """Remove all keys of a tuning; return how many that were. Raises redis.RedisError."""
    removed = 0
    found = client.scan_iter(match=f"*{escape_pattern(space.prefix)}*", count=KEYS_AT_A_TIME)
    while batch := list(islice(found, KEYS_AT_A_TIME)):
        removed += client.unlink(*batch)
    return removed


def remove_tuning(registry: Registry, space: Space) -> int:
    """Remove all keys of a tuning, and its lease; return how many keys that were. Raises redis.RedisError."""
    removed = remove_keys(registry.client, space)
    # Last, so that a tuning that is no longer listed has left nothing.
    registry.client.zrem(registry.prefix + TUNES, space.name)
    return removed


def list_dead(registry: Registry) -> list[Space]:
    """Return the tunings whose lease has expired; raises redis.RedisError."""
    found: Any = registry.client.zrangebyscore(registry.prefix + TUNES, "-inf", registry.now())
    names = [name.decode() for name in found]
    return [Space(name) for name in names if SPACE_NAME.fullmatch(name)]


def remove_dead(registry: Registry) -> list[Space]:
    """Remove what dead tunings left; return them. Raises redis.RedisError."""
    for space in (dead := list_dead(registry)):
        remove_tuning(registry, space)
    return dead


def main() -> int:
    name, *options = sys.argv[1:]

    def work(app: Any, output: int) -> None:
        with connected(app) as channel:
            registry = open_registry(channel)
            dead = remove_dead(registry) if "--remove" in options else list_dead(registry)
        os.write(output, msgspec.json.encode([space.name for space in dead]))

    return run_program(name, work, without_redis="the app's broker is not Redis, where nothing is tuned")


if __name__ == "__main__":
    end_with(main)
