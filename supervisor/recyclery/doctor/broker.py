"""The broker: whether it answers, and whether it may forget what waits in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from recyclery.celery_app.reclaim import CannotTell, find_forgotten, find_tunings
from recyclery.doctor.findings import Finding, failure, ok, skipped, warning
from recyclery.observe.queue_depths import open_client
from recyclery_worker.delivery.reclaim import OrphanedLease

OLDEST = (6, 2)


@dataclass(frozen=True)
class BrokerFacts:
    """What Redis says of itself; `problem` says why it does not, `kind` what it is where it is no Redis."""

    address: str
    kind: str = "redis"
    problem: str | None = None
    version: str = ""
    policy: str = ""
    max_bytes: int = 0
    used_bytes: int = 0
    appends: bool = True
    saves: bool | None = None
    """Whether it writes snapshots; None where that may not be asked."""


def look_at_broker(url: str, address: str) -> BrokerFacts:
    """Ask the broker at `url`; `address` is it without secrets."""
    kind = url.partition(":")[0]
    client = open_client(url)
    if client is None:
        return BrokerFacts(address, kind=kind)
    with client:
        try:
            info: Any = client.info()
        except redis.AuthenticationError:
            return BrokerFacts(address, problem="it refuses the password")
        except NoPermissionError:
            return BrokerFacts(address, kind="redis, which does not let us ask")
        except (redis.RedisError, OSError) as error:
            return BrokerFacts(address, problem=str(error))
        return read_info(address, info, saves=asks_saves(client))


def asks_saves(client: redis.Redis) -> bool | None:
    """Tell whether snapshots are written; None where CONFIG is not for us."""
    try:
        answer: Any = client.config_get("save")
    except redis.RedisError:
        return None
    return bool(answer.get("save", "").strip())


def read_info(address: str, info: Mapping[str, Any], *, saves: bool | None) -> BrokerFacts:
    """Take what matters out of INFO."""
    return BrokerFacts(
        address,
        version=str(info.get("redis_version", "")),
        policy=str(info.get("maxmemory_policy", "")),
        max_bytes=int(info.get("maxmemory", 0)),
        used_bytes=int(info.get("used_memory", 0)),
        appends=bool(info.get("aof_enabled", 0)),
        saves=saves,
    )


def judge_broker(facts: BrokerFacts) -> Iterator[Finding]:
    """Say what is wrong with it."""
    if facts.problem is not None:
        yield failure(
            "broker",
            f"{facts.address} does not answer: {facts.problem}",
            "start it, or set REDIS_URL (or what your app reads its broker from) to where it is",
        )
        return
    if facts.kind != "redis":
        yield skipped("broker", f"{facts.address}: of {facts.kind} nothing more is known")
        return
    if version_of(facts.version) < OLDEST:
        yield warning("broker", f"Redis {facts.version} at {facts.address}", "use Redis 6.2 or newer")
    else:
        yield ok("broker", f"Redis {facts.version} at {facts.address} answers")
    if facts.max_bytes and facts.policy != "noeviction":
        yield failure(
            "eviction",
            f"Redis may forget queues when it is full: maxmemory-policy is {facts.policy}",
            "set maxmemory-policy noeviction, and cache elsewhere",
        )
    elif facts.max_bytes and facts.used_bytes > 0.8 * facts.max_bytes:
        share = facts.used_bytes / facts.max_bytes
        yield warning(
            "eviction", f"Redis is {share:.0%} full; when it is, no task can be sent", "raise maxmemory"
        )
    else:
        yield ok("eviction", "Redis forgets nothing to make room")
    if not facts.appends and facts.saves is False:
        yield warning(
            "persistence",
            "Redis keeps nothing on disk: what waits is lost when it restarts",
            "appendonly yes",
        )
    elif not facts.appends:
        yield warning(
            "persistence",
            "Redis keeps snapshots only: the last minutes are lost when it crashes",
            "appendonly yes",
        )
    else:
        yield ok("persistence", "Redis writes down what it gets (appendonly)")


def version_of(text: str) -> tuple[int, ...]:
    """Return a version's first two numbers; (0, 0) where there are none."""
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0, 0)


NAME = "forgotten tasks"


def look_at_leases(app: str) -> Sequence[OrphanedLease] | str:
    """Return the dead workers that hold something, or why that cannot be told."""
    try:
        return find_forgotten(app)
    except CannotTell as error:
        return str(error)


def judge_leases(found: Sequence[OrphanedLease] | str) -> Iterator[Finding]:
    """Say whether tasks wait in the hands of the dead."""
    if isinstance(found, str):
        yield skipped(NAME, found)
        return
    for worker in found:
        yield warning(
            NAME,
            f"{worker.messages} are held by {worker.node} (pid {worker.pid}), which is dead",
            "a living worker gives them back within 20 s; where there is none: recyclery reclaim",
        )
    if not found:
        yield ok(NAME, "nothing is held by dead workers")


def look_at_tunings(app: str) -> Sequence[str] | str:
    """Return the tunings that were killed and left something, or why that cannot be told."""
    try:
        return find_tunings(app)
    except CannotTell as error:
        return str(error)


def judge_tunings(found: Sequence[str] | str) -> Iterator[Finding]:
    """Say what `recyclery tune` left where it was killed; nothing where it left nothing."""
    if isinstance(found, str):
        return
    for name in found:
        yield warning(
            "tunings",
            f"one that was killed has left its tasks in Redis ({name})",
            "the next `recyclery tune` removes them; or: recyclery reclaim",
        )
