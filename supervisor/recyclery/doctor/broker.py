"""The broker: whether it answers, has room for us, and can lose queues; and what the dead left there."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis
from celery import Celery
from kombu.utils.url import maybe_sanitize_url
from redis.exceptions import NoPermissionError

from recyclery.celery_app.reclaim import CannotTell, find_dead_tunings, find_orphaned_leases
from recyclery.config.settings import Pool
from recyclery.doctor.findings import Finding, failure, ok, skipped, warning
from recyclery.observe.queue_depths import open_client
from recyclery_worker.broker.connection import BOUNDED_BY_KIND, connect
from recyclery_worker.delivery.reclaim import OrphanedLease

OLDEST_REDIS = (6, 2)
FORGOTTEN_TASKS = "forgotten tasks"
# What a worker's main process has open to Redis; each of its children has one more, for results.
WORKER_CONNECTIONS = 10
CROWDED = 0.8


@dataclass(frozen=True)
class BrokerFacts:
    """Redis's INFO, or RabbitMQ's version; `problem` is why there is none, `kind` what else the broker is.

    `away` has what is wrong with those that stand before it in a list of brokers.
    """

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
    max_connections: int | None = None
    connections: int = 0
    away: tuple[str, ...] = ()


def read_brokers(urls: Sequence[str]) -> BrokerFacts:
    """Ask a list of brokers as a worker does: the first that answers is used."""
    away: list[str] = []
    for url in urls:
        facts = read_broker(url)
        if facts.problem is None:
            return replace(facts, away=tuple(away))
        away.append(f"{facts.address} does not answer: {facts.problem}")
    return replace(facts, away=tuple(away[:-1]))


def read_rabbitmq(app: Celery) -> BrokerFacts:
    """Ask RabbitMQ, or a list of them, as a worker does."""
    with app.connection_for_read(transport_options=BOUNDED_BY_KIND["amqp"]) as connection:
        problem, version = None, ""
        try:
            connect(connection)
            version = str(connection.connection.server_properties.get("version", ""))
        except Exception as error:  # of many kinds, also where the password is refused
            problem = str(error) or repr(error)
        return BrokerFacts(maybe_sanitize_url(connection.as_uri()), "amqp", problem, version)


def read_broker(url: str) -> BrokerFacts:
    """Ask the broker at a URL."""
    address = maybe_sanitize_url(url)
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
            max_connections=info.get("maxclients") or None,
            connections=int(info.get("connected_clients", 0)),
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
        last = f"{facts.address} does not answer: {facts.problem}"
        yield failure("broker", "; ".join([*facts.away, last]), advice)
        return
    for problem in facts.away:
        text = f"{problem}; the next of the list is used"
        yield warning("broker", text, "start it, or take it out of the list")
    if facts.kind == "amqp":
        yield ok("broker", f"RabbitMQ {facts.version} at {facts.address} answers")
        return
    if facts.kind != "redis":
        yield skipped("broker", f"{facts.address} is {facts.kind}: only Redis and RabbitMQ are checked")
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


def connection_findings(facts: BrokerFacts, pools: Sequence[Pool]) -> Iterator[Finding]:
    """Find a Redis that refuses workers, or whoever sends them tasks; nothing where its limit is not known."""
    if facts.max_connections is None:
        return
    workers = [WORKER_CONNECTIONS + pool.most for pool in pools]
    needed, replacing = sum(workers), max(workers)
    limit = f"Redis takes {facts.max_connections} connections (maxclients)"
    advice = "raise maxclients, or lower the pools' concurrency; CLIENT LIST shows whose they are"
    if needed > facts.max_connections:
        yield failure("connections", f"{limit}, and these pools need up to {needed}", advice)
    elif needed + replacing > facts.max_connections:
        text = f"{limit}, and these pools need up to {needed}, {replacing} more while a worker is replaced"
        yield warning("connections", text, advice)
    elif facts.connections > CROWDED * facts.max_connections:
        yield warning("connections", f"{limit}, and {facts.connections} are open", advice)
    else:
        yield ok("connections", f"{limit}; these pools need up to {needed}, {facts.connections} are open")


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
