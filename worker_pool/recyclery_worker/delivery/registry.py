"""The registry of workers in Redis: each start of a worker is a generation, with keys for its messages.

`recyclery:generations` is a hash, id to JSON of `Generation`; `recyclery:leases` is a sorted set, id to the
time, by Redis's clock, until which its lease is valid. A generation without a valid lease is dead, and what it
holds is given back.
"""

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from recyclery_worker.broker.connection import open_redis
from recyclery_worker.parking.records import in_flight_key

LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
GENERATIONS = "recyclery:generations"
LEASES = "recyclery:leases"
# For this time a worker can see that its messages were given away, and not lost with Redis's data.
RECLAIMED_SECONDS = 24 * 3600
# kombu's names (kombu/transport/redis.py, Channel).
KEY_OPTIONS = ("unacked_key", "unacked_index_key", "unacked_mutex_key")


class Generation(msgspec.Struct, frozen=True):
    """One start of a worker."""

    id: str
    node: str
    pool: str
    pid: int

    @property
    def keys(self) -> dict[str, str]:
        """The broker transport options that name this generation's keys."""
        return {option: f"recyclery:{self.id}:{option.removesuffix('_key')}" for option in KEY_OPTIONS}


def new_generation(node: str) -> Generation:
    return Generation(secrets.token_hex(8), node, os.environ.get("RECYCLERY_POOL", ""), os.getpid())


@dataclass(frozen=True)
class Registry:
    """The registry in one Redis; every method raises redis.RedisError when that does not answer."""

    client: Any  # redis-py types every answer as one that may be awaitable
    prefix: str = ""

    def register(self, generation: Generation) -> None:
        """Write a generation with a new lease, both or neither."""
        until = self.now() + LEASE_SECONDS
        with self.client.pipeline() as pipe:
            pipe.hset(self.prefix + GENERATIONS, generation.id, msgspec.json.encode(generation))
            pipe.zadd(self.prefix + LEASES, {generation.id: until})
            pipe.execute()

    def probe(self) -> None:
        """Run every command of this class once, on no worker's generation; raises redis.NoPermissionError."""
        # A Redis user that may not had better be told now than when a lease is due.
        probe = Generation(f"rehearsal-{secrets.token_hex(4)}", "", "", 0)
        self.register(probe)
        self.renew(probe)
        self.list_dead()
        self.find(probe.id)
        self.fence(probe)
        self.was_reclaimed(probe)
        self.held_tags(probe)
        self.forget(probe, ["none"])
        self.deregister(probe)
        self.client.delete(self._mark(probe))

    def renew(self, generation: Generation) -> bool:
        """Extend a lease that exists, expired or not; return whether it did."""
        until = self.now() + LEASE_SECONDS
        return bool(self.client.zadd(self.prefix + LEASES, {generation.id: until}, xx=True, ch=True))

    def was_reclaimed(self, generation: Generation) -> bool:
        return bool(self.client.exists(self._mark(generation)))

    def list_dead(self) -> list[Generation]:
        """Return the generations whose lease has expired or is gone."""
        now = self.now()
        entries = self.client.hgetall(self.prefix + GENERATIONS)
        leases = self.client.zrange(self.prefix + LEASES, 0, -1, withscores=True)
        alive = {member for member, until in leases if until >= now}
        dead = [entry for name, entry in entries.items() if name not in alive]
        return [msgspec.json.decode(entry, type=Generation) for entry in dead]

    def list_unregistered(self) -> list[Generation]:
        """Return the generations that hold messages and are not registered: Redis has lost a part."""
        registered = self.client.hkeys(self.prefix + GENERATIONS)
        start, end = f"{self.prefix}recyclery:", ":unacked"
        keys = self.client.scan_iter(match=f"{escape_pattern(start)}*{end}")
        ids = {key.decode().removeprefix(start).removesuffix(end) for key in keys}
        unregistered = sorted(ids - {name.decode() for name in registered})
        # An id with a colon is a tuning's, which has a registry of its own.
        return [Generation(name, "an unknown worker", "", 0) for name in unregistered if ":" not in name]

    def find(self, generation_id: str) -> Generation | None:
        entry = self.client.hget(self.prefix + GENERATIONS, generation_id)
        return msgspec.json.decode(entry, type=Generation) if entry else None

    def fence(self, generation: Generation) -> None:
        """Remove a lease, so that its holder starts no further task if it is alive after all."""
        with self.client.pipeline() as pipe:
            pipe.set(self._mark(generation), 1, ex=RECLAIMED_SECONDS)
            pipe.zrem(self.prefix + LEASES, generation.id)
            pipe.execute()

    def held_tags(self, generation: Generation) -> list[str]:
        """Return the delivery tags of the messages that a generation holds, the newest first."""
        keys = generation.keys
        ordered = self.client.zrange(self.prefix + keys["unacked_index_key"], 0, -1, desc=True)
        every = self.client.hkeys(self.prefix + keys["unacked_key"])
        return [tag.decode() for tag in dict.fromkeys([*ordered, *every])]

    def taken_at(self, generation: Generation, tag: str) -> float | None:
        """Return when a message was received, by the clock of its worker; None where it is not held."""
        # Asked for seldom, so with the command that a Redis user has who may list them.
        times: Any = self.client.zrange(
            self.prefix + generation.keys["unacked_index_key"], 0, -1, desc=True, withscores=True
        )
        return {name.decode(): float(at) for name, at in times}.get(tag)

    def forget(self, generation: Generation, tags: Sequence[str]) -> None:
        keys = generation.keys
        with self.client.pipeline() as pipe:
            pipe.zrem(self.prefix + keys["unacked_index_key"], *tags)
            pipe.hdel(self.prefix + keys["unacked_key"], *tags)
            pipe.execute()

    def deregister(self, generation: Generation) -> bool:
        """Remove a generation that holds nothing; return whether it held nothing."""
        # Redis removes its keys for messages when they are empty. They are not deleted here: a holder that is
        # alive after all may be writing to them.
        keys = generation.keys
        if self.client.hlen(self.prefix + keys["unacked_key"]):
            return False
        with self.client.pipeline() as pipe:
            pipe.zrem(self.prefix + LEASES, generation.id)
            pipe.hdel(self.prefix + GENERATIONS, generation.id)
            pipe.delete(self.prefix + keys["unacked_mutex_key"], self.prefix + in_flight_key(generation.id))
            pipe.execute()
        return True

    def now(self) -> float:
        """Return Redis's time, the only clock that all its clients share."""
        seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6

    def _mark(self, generation: Generation) -> str:
        return f"{self.prefix}recyclery:{generation.id}:reclaimed"


def escape_pattern(text: str) -> str:
    """Return text as a Redis pattern that matches only the text."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def open_registry(channel: Any) -> Registry:
    return Registry(*open_redis(channel))
