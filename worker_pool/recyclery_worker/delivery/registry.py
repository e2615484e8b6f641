"""Who holds which messages, written down in Redis: each start of a worker is a generation with keys of its own.

`recyclery:generations` is a hash, id to JSON of `Generation`; `recyclery:leases` a sorted set, id to the time,
by Redis's clock, up to which its worker was known to live. A generation without a lease is dead.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from recyclery_worker.broker.connection import open_redis
from recyclery_worker.parking.records import started_key

LEASE_SECONDS = 10.0
RENEW_SECONDS = 2.0
GENERATIONS = "recyclery:generations"
LEASES = "recyclery:leases"
# Tells a worker whose lease is gone that its messages were given away, and Redis's data not just lost.
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
    """Return the generation of this very process."""
    return Generation(secrets.token_hex(8), node, os.environ.get("RECYCLERY_POOL", ""), os.getpid())


@dataclass(frozen=True)
class Book:
    """The entries in one Redis; every method raises redis.RedisError when that does not answer."""

    client: redis.Redis
    prefix: str = ""

    def enter(self, generation: Generation) -> None:
        """Write a generation down with a fresh lease, both or neither."""
        until = self.now() + LEASE_SECONDS
        with self.client.pipeline() as pipe:
            pipe.hset(self.prefix + GENERATIONS, generation.id, msgspec.json.encode(generation))
            pipe.zadd(self.prefix + LEASES, {generation.id: until})
            pipe.execute()

    def rehearse(self) -> None:
        """Do all that is ever done here, with a generation that nobody has.

        Raises redis.NoPermissionError where Redis does not let this user: better now than when a lease is due.
        """
        nobody = Generation(f"rehearsal-{secrets.token_hex(4)}", "", "", 0)
        self.enter(nobody)
        self.renew(nobody)
        self.list_dead()
        self.find(nobody.id)
        self.fence(nobody)
        self.was_reclaimed(nobody)
        self.held_tags(nobody)
        self.drop(nobody, ["none"])
        self.strike(nobody)
        self.client.delete(self._mark(nobody))

    def renew(self, generation: Generation) -> bool:
        """Prolong a lease that is there, expired or not; tell whether it was."""
        until = self.now() + LEASE_SECONDS
        changed: Any = self.client.zadd(self.prefix + LEASES, {generation.id: until}, xx=True, ch=True)
        return bool(changed)

    def was_reclaimed(self, generation: Generation) -> bool:
        """Tell whether its messages were given away."""
        return bool(self.client.exists(self._mark(generation)))

    def list_dead(self) -> list[Generation]:
        """Return the generations whose lease has run out, or is gone."""
        now = self.now()
        entries: Any = self.client.hgetall(self.prefix + GENERATIONS)
        leases: Any = self.client.zrange(self.prefix + LEASES, 0, -1, withscores=True)
        alive = {member.decode() for member, until in leases if until >= now}
        return [
            msgspec.json.decode(entry, type=Generation)
            for name, entry in entries.items()
            if name.decode() not in alive
        ]

    def list_unwritten(self) -> list[Generation]:
        """Return the generations that have messages in hand and are not written down: Redis forgot a part."""
        written: Any = self.client.hkeys(self.prefix + GENERATIONS)
        known = {name.decode() for name in written}
        start, end = f"{self.prefix}recyclery:", ":unacked"
        keys: Any = self.client.scan_iter(match=f"{escape(start)}*{end}")
        ids = {key.decode().removeprefix(start).removesuffix(end) for key in keys}
        # What has more words between is a tuning's, and has its own book.
        unwritten = sorted(name for name in ids - known if ":" not in name)
        return [Generation(name, "an unknown worker", "", 0) for name in unwritten]

    def find(self, generation_id: str) -> Generation | None:
        """Return a generation that is written down."""
        entry: Any = self.client.hget(self.prefix + GENERATIONS, generation_id)
        return msgspec.json.decode(entry, type=Generation) if entry else None

    def fence(self, generation: Generation) -> None:
        """Take a lease away, so that its holder, should it live, starts no further task."""
        with self.client.pipeline() as pipe:
            pipe.set(self._mark(generation), 1, ex=RECLAIMED_SECONDS)
            pipe.zrem(self.prefix + LEASES, generation.id)
            pipe.execute()

    def held_tags(self, generation: Generation) -> list[str]:
        """Return the delivery tags that a generation holds, the newest first."""
        keys = generation.keys
        ordered: Any = self.client.zrange(self.prefix + keys["unacked_index_key"], 0, -1, desc=True)
        every: Any = self.client.hkeys(self.prefix + keys["unacked_key"])
        return [tag.decode() for tag in dict.fromkeys([*ordered, *every])]

    def drop(self, generation: Generation, tags: Sequence[str]) -> None:
        """Forget messages that are done with."""
        keys = generation.keys
        with self.client.pipeline() as pipe:
            pipe.zrem(self.prefix + keys["unacked_index_key"], *tags)
            pipe.hdel(self.prefix + keys["unacked_key"], *tags)
            pipe.execute()

    def strike(self, generation: Generation) -> bool:
        """Remove a generation that holds nothing; tell whether it held nothing.

        Its keys for messages are gone by themselves when they are empty. They are not deleted here: a holder
        that lives after all may be writing to them.
        """
        keys = generation.keys
        if self.client.hlen(self.prefix + keys["unacked_key"]):
            return False
        with self.client.pipeline() as pipe:
            pipe.zrem(self.prefix + LEASES, generation.id)
            pipe.hdel(self.prefix + GENERATIONS, generation.id)
            pipe.delete(self.prefix + keys["unacked_mutex_key"], self.prefix + started_key(generation.id))
            pipe.execute()
        return True

    def now(self) -> float:
        """Return Redis's time: the only clock that all its users share."""
        seconds, microseconds = self.client.time()
        return float(seconds) + float(microseconds) / 1e6

    def _mark(self, generation: Generation) -> str:
        return f"{self.prefix}recyclery:{generation.id}:reclaimed"


def escape(text: str) -> str:
    """Return text as a Redis pattern that matches just that."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def open_book(channel: Any) -> Book:
    """Return the book in the Redis of one of kombu's channels."""
    return Book(*open_redis(channel))
