"""The registry of workers in Redis: each start of a worker is a generation, with keys for its messages.

`recyclery:generations` is a hash, id to JSON of `Generation`; `recyclery:leases` is a sorted set, id to the
time, by Redis's clock, until which its lease is valid. A generation whose lease nobody renews is dead, and what
it holds is given back.

Clocks may be set, and a virtual machine may be resumed with its Redis. So a lease counts as renewed when that
time changes, whatever it is, and for how long it did not change each worker measures by itself. Workers up to
0.1 compare it with Redis's clock.
"""

import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from recyclery_worker.broker.connection import open_redis
from recyclery_worker.link import read_variable
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


def unknown_generation(generation_id: str) -> Generation:
    return Generation(generation_id, "an unknown worker", "", 0)


def new_generation(node: str) -> Generation:
    return Generation(secrets.token_hex(8), node, read_variable("RECYCLERY_POOL"), os.getpid())


class LeaseWatch:
    """For how long each lease was seen not to be renewed."""

    def __init__(self) -> None:
        self._looked: float | None = None
        # The lease and the seconds, by generation.
        self._unchanged: dict[str, tuple[float | None, float]] = {}

    def find_dead(self, leases: Mapping[str, float | None], at: float) -> list[str]:
        """Return the generations whose lease was not renewed for as long as it lasts; `at` is link.now()."""
        # Nobody knows of the time in which nobody looked: we may have been frozen together with their workers.
        passed = 0.0 if self._looked is None else min(at - self._looked, 2 * RENEW_SECONDS)
        before, self._looked, self._unchanged = self._unchanged, at, {}
        for generation, lease in leases.items():
            last, seconds = before.get(generation, (lease, -passed))
            # One that is gone was not renewed: another worker gives back, and may have died of it.
            is_renewed = lease is not None and lease != last
            self._unchanged[generation] = (lease, 0.0) if is_renewed else (last, seconds + passed)
        return [each for each, (_, seconds) in self._unchanged.items() if seconds >= LEASE_SECONDS]

    def restart(self, generation: str) -> None:
        """Look at a lease as if for the first time."""
        self._unchanged.pop(generation, None)


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
        self.list_expired()
        self.find(probe.id)
        self.fence(probe)
        self.was_reclaimed(probe)
        self.held(probe)
        self.count_held(probe)
        self.forget(probe, ["none"])
        self.deregister(probe)
        self.client.delete(self._mark(probe))

    def renew(self, generation: Generation) -> bool:
        """Extend a lease that exists, expired or not; return whether it did."""
        until = self.now() + LEASE_SECONDS
        return bool(self.client.zadd(self.prefix + LEASES, {generation.id: until}, xx=True, ch=True))

    def was_reclaimed(self, generation: Generation) -> bool:
        return bool(self.client.exists(self._mark(generation)))

    def leases(self) -> dict[str, float | None]:
        """Return the lease of each generation as it is written; None where it is gone."""
        with self.client.pipeline() as pipe:
            pipe.hkeys(self.prefix + GENERATIONS)
            pipe.zrange(self.prefix + LEASES, 0, -1, withscores=True)
            names, leases = pipe.execute()
        until = dict(map(tuple, leases))
        return {name.decode(errors="replace"): until.get(name) for name in names}

    def list_expired(self) -> list[Generation]:
        """Return the generations whose lease has expired by Redis's clock, or is gone: they seem to be dead."""
        now = self.now()
        expired = [name for name, until in self.leases().items() if until is None or until < now]
        return [found for name in expired if (found := self.find(name)) is not None]

    def list_unregistered(self) -> list[Generation]:
        """Return the generations that hold messages and are not registered: Redis has lost a part."""
        registered = self.client.hkeys(self.prefix + GENERATIONS)
        start, end = f"{self.prefix}recyclery:", ":unacked"
        keys = self.client.scan_iter(match=f"{escape_pattern(start)}*{end}")
        ids = {key.decode(errors="replace").removeprefix(start).removesuffix(end) for key in keys}
        unregistered = sorted(ids - {name.decode(errors="replace") for name in registered})
        # An id with a colon is a tuning's, which has a registry of its own.
        return [unknown_generation(name) for name in unregistered if ":" not in name]

    def find(self, generation_id: str) -> Generation | None:
        entry = self.client.hget(self.prefix + GENERATIONS, generation_id)
        try:
            return msgspec.json.decode(entry, type=Generation) if entry else None
        except msgspec.DecodeError:  # Not ours, or damaged: what is under its name is given back all the same.
            return unknown_generation(generation_id)

    def fence(self, generation: Generation) -> None:
        """Remove a lease, so that its holder starts no further task if it is alive after all."""
        with self.client.pipeline() as pipe:
            pipe.set(self._mark(generation), 1, ex=RECLAIMED_SECONDS)
            pipe.zrem(self.prefix + LEASES, generation.id)
            pipe.execute()

    def held(self, generation: Generation) -> dict[str, float | None]:
        """Return what a generation holds, the newest first: delivery tags with the time when each was taken.

        The times are by the clock of its worker; None where that is not known.
        """
        keys = generation.keys
        with self.client.pipeline() as pipe:
            pipe.zrange(self.prefix + keys["unacked_index_key"], 0, -1, desc=True, withscores=True)
            pipe.hkeys(self.prefix + keys["unacked_key"])
            ordered, every = pipe.execute()
        held: dict[str, float | None] = {read_tag(tag): taken_at for tag, taken_at in ordered}
        return held | {tag: None for tag in map(read_tag, every) if tag not in held}

    def count_held(self, generation: Generation) -> int:
        return int(self.client.hlen(self.prefix + generation.keys["unacked_key"]))

    def forget(self, generation: Generation, tags: Sequence[str | bytes]) -> None:
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
        if self.count_held(generation):
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


def read_tag(tag: bytes) -> str:
    """Return a delivery tag as text, whatever its bytes are."""
    return tag.decode(errors="surrogateescape")


def escape_pattern(text: str) -> str:
    """Return text as a Redis pattern that matches only the text."""
    return re.sub(r"([*?\[\]\\^])", r"\\\1", text)


def open_registry(channel: Any) -> Registry:
    return Registry(*open_redis(channel))
