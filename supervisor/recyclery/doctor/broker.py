"""The broker: whether it answers, whether it can lose queues, and what dead workers and tunings left there."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import NoPermissionError

from recyclery.celery_app.reclaim import CannotTell, find_dead_tunings, find_orphaned_leases
from recyclery.doctor.findings import Finding, failure, ok, skipped, warning
from recyclery.observe.queue_depths import open_client
from recyclery_worker.delivery.reclaim import OrphanedLease

OLDEST_REDIS = (6, 2)
FORGOTTEN_TASKS = "forgotten tasks"


@dataclass(frozen=True)
class BrokerFacts:
    """Redis's INFO; `problem` is why there is none, `kind` what the broker is where it is no Redis."""

    address: str
    kind: str = "redis"
    problem: str | None = None
    version: str = ""
    policy: str = ""
    max_bytes: int = 0
    used_bytes: int = 0
    appends: bool = True
    saves: bool | None = None
    """Whether it writes snapshots; None where it does not let us ask."""


def read_broker(url: str, address: str) -> BrokerFacts:
    """Ask the broker at `url`; `address` is the same without secrets."""
    client = open_client(url)
    if client is None:
        return BrokerFacts(address, kind=url.partition(":")[0])
    with client:
        try:
            info: Any = client.info()
        except redis.AuthenticationError:
            return BrokerFacts(address, problem="it refuses the password")
        except NoPermissionError:
            return BrokerFacts(address, kind="redis, which does not let us ask")
        except (redis.RedisError, OSError) as error:
            return BrokerFacts(address, problem=str(error))
        return BrokerFacts(
            address,
            version=str(info.get("redis_version", "")),
            policy=str(info.get("maxmemory_policy", "")),
            max_bytes=int(info.get("maxmemory", 0)),
            used_bytes=int(info.get("used_memory", 0)),
            appends=bool(info.get("aof_enabled", 0)),
            saves=writes_snapshots(client),
        )


def writes_snapshots(client: redis.Redis) -> bool | None:
    """Return whether snapshots are written; None where CONFIG is not permitted."""
    try:
        answer: Any = client.config_get("save")
    except redis.RedisError:
        return None
    return bool(answer.get("save", "").strip())


def broker_findings(facts: BrokerFacts) -> Iterator[Finding]:
    if facts.problem is not None:
        advice = "start it, or set REDIS_URL (or what your app reads its broker from) to where it is"
        yield failure("broker", f"{facts.address} does not answer: {facts.problem}", advice)
        return
    if facts.kind != "redis":
        yield skipped("broker", f"{facts.address} is {facts.kind}: only Redis is checked")
        return
    if parse_version(facts.version) < OLDEST_REDIS:
        yield warning("broker", f"Redis {facts.version} at {facts.address}", "use Redis 6.2 or newer")
    else:
        yield ok("broker", f"Redis {facts.version} at {facts.address} answers")
    if facts.max_bytes and facts.policy != "noeviction":
        text = f"Redis may evict queues when it is full: maxmemory-policy is {facts.policy}"
        yield failure("eviction", text, "set maxmemory-policy noeviction, and cache elsewhere")
    elif facts.max_bytes and facts.used_bytes > 0.8 * facts.max_bytes:
        share = facts.used_bytes / facts.max_bytes
        yield warning("eviction", f"Redis is {share:.0%} full; at 100 % no task can be sent", "raise maxmemory")
    else:
        yield ok("eviction", "Redis evicts nothing to make room")
    if facts.appends:
        yield ok("persistence", "Redis writes everything to its append-only file")
    else:
        lost = "Redis keeps snapshots only: the last minutes are lost when it crashes"
        if facts.saves is False:
            lost = "Redis keeps nothing on disk: waiting tasks are lost when it restarts"
        yield warning("persistence", lost, "appendonly yes")


def parse_version(text: str) -> tuple[int, ...]:
    """Return a version's first two numbers; (0, 0) where there are none."""
    parts = text.split(".")[:2]
    return tuple(int(part) for part in parts) if all(part.isdigit() for part in parts) else (0, 0)


def read_leases(app: str) -> Sequence[OrphanedLease] | str:
    """Return the leases of dead workers, or why they cannot be read."""
    try:
        return find_orphaned_leases(app)
    except CannotTell as error:
        return str(error)


def lease_findings(found: Sequence[OrphanedLease] | str) -> Iterator[Finding]:
    """Find messages that dead workers hold."""
    if isinstance(found, str):
        yield skipped(FORGOTTEN_TASKS, found)
        return
    for lease in found:
        yield warning(
            FORGOTTEN_TASKS,
            f"{lease.messages} are held by {lease.node} (pid {lease.pid}), which is dead",
            "a living worker gives them back within 20 s; where there is none: recyclery reclaim",
        )
    if not found:
        yield ok(FORGOTTEN_TASKS, "dead workers hold nothing")


def tuning_findings(app: str) -> Iterator[Finding]:
    """Find tasks of a `recyclery tune` that was killed; nothing where that cannot be read."""
    with contextlib.suppress(CannotTell):
        for name in find_dead_tunings(app):
            left = f"one that was killed has left its tasks in Redis ({name})"
            yield warning("tunings", left, "the next `recyclery tune` removes them; or: recyclery reclaim")
