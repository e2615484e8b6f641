"""The running supervisor and its queues: the problems that the deployment guide names."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from celery import Celery

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.control.status_schema import Status
from recyclery.doctor.findings import Finding, failure, note, ok, skipped, warning
from recyclery.observe.queue_depths import Broker
from recyclery_worker.broker.connection import BOUNDED_BY_KIND, broker_kind, connect, count_ready

INSPECT_SECONDS = 1.5
TASKS_NOT_PROCESSED = "tasks not processed"
KEEPS_RESTARTING = "worker keeps restarting"
HIGH_NOT_PRIORITISED = "high queue not prioritised"


@dataclass(frozen=True)
class SupervisionFacts:
    """The status, the queues' depths, and the nodes that consume from each queue, on any machine."""

    status: Status | None
    problem: str = ""
    depths: Mapping[str, int] | None = None
    consumers: Mapping[str, tuple[str, ...]] | None = None


def read_supervision(
    app: Celery, broker_url: str, runtime_dir: Path, queues: tuple[str, ...]
) -> SupervisionFacts:
    """Ask the governor here, the broker, and all workers of the app."""
    status, problem = None, ""
    try:
        status = msgspec.convert(ask_governor(runtime_dir, "status"), Status)
    except (NoSupervisor, Declined) as error:
        problem = str(error)
    broker = Broker(broker_url)
    depths = count_in_rabbitmq(app, queues) or {queue: broker.depth([queue]) for queue in queues}
    known = {queue: depth for queue, depth in depths.items() if depth is not None}
    return SupervisionFacts(
        status, problem, known if len(known) == len(depths) else None, find_consumers(app) if known else None
    )


def count_in_rabbitmq(app: Celery, queues: tuple[str, ...]) -> dict[str, int | None]:
    """Return how many messages wait in each queue; empty where RabbitMQ is away or not the broker."""
    if broker_kind(app.connection_for_read()) != "amqp":
        return {}
    try:
        with app.connection_for_read(transport_options=BOUNDED_BY_KIND["amqp"]) as connection:
            connect(connection)
            return {queue: count_ready(connection, queue) for queue in queues}
    except Exception:  # transports raise errors of their own kinds
        return {}


def find_consumers(app: Celery) -> dict[str, tuple[str, ...]] | None:
    """Return the nodes that consume from each queue; None where the workers cannot be asked."""
    try:
        answers: Any = app.control.inspect(timeout=INSPECT_SECONDS).active_queues()
    except Exception:  # transports raise errors of their own kinds
        return None
    nodes: dict[str, list[str]] = {}
    for node, consumed in (answers or {}).items():
        for queue in consumed:
            nodes.setdefault(queue["name"], []).append(node)
    return {queue: tuple(sorted(names)) for queue, names in nodes.items()}


def supervision_findings(facts: SupervisionFacts, settings: Settings, queue_order: str) -> Iterator[Finding]:
    if facts.status is None:
        yield note("supervisor", facts.problem)
    else:
        yield ok("supervisor", "answers")
    yield from processing_findings(facts)
    yield from restart_findings(facts.status)
    yield from order_findings(facts, settings, queue_order)


def processing_findings(facts: SupervisionFacts) -> Iterator[Finding]:
    """Find tasks that no worker takes, and pools that take none."""
    pools = facts.status.pools if facts.status is not None else {}
    troubled = {name: pool.state for name, pool in pools.items() if pool.state is not PoolState.RUNNING}
    for name, state in troubled.items():
        if state.is_changing:
            yield note(TASKS_NOT_PROCESSED, f"pool {name} is {state}")
        else:
            advice = "its log says why; `broker` above shows whether it is reached"
            yield failure(TASKS_NOT_PROCESSED, f"pool {name} is {state}", advice)
    if facts.depths is None or facts.consumers is None:
        yield skipped(TASKS_NOT_PROCESSED, "the queues or their workers could not be asked")
        return
    unserved = {queue: n for queue, n in facts.depths.items() if n and not facts.consumers.get(queue)}
    for queue, waiting in unserved.items():
        advice = f"start the pool that serves {queue} (CELERY_QUEUES), or route its tasks elsewhere"
        yield failure(TASKS_NOT_PROCESSED, f"{waiting} wait in {queue}, and no worker takes from it", advice)
    if not unserved and not troubled:
        waiting = sum(facts.depths.values())
        yield ok(TASKS_NOT_PROCESSED, f"every queue with tasks has a worker ({waiting} wait)")


def restart_findings(status: Status | None) -> Iterator[Finding]:
    """Find workers that die, and processes that were killed for memory."""
    if status is None:
        yield skipped(KEEPS_RESTARTING, "no supervisor here to ask")
        return
    failing = [name for name, pool in status.pools.items() if pool.state.is_failing]
    for name in failing:
        advice = "its last lines in the log say why: the app's imports, a database it connects to, its options"
        yield failure(KEEPS_RESTARTING, f"pool {name} ends right after its start", advice)
    kills = status.container.oom_kills
    killed = [f"the kernel has killed {kills} processes for memory"] if kills else []
    killed += [
        f"{count} children of {name} had to be killed near the limit"
        for name, pool in status.pools.items()
        if (count := pool.recycles.get("preempt", 0))
    ]
    for text in killed:
        advice = "raise the limit or lower the concurrency; the log names the task that grew"
        yield warning(KEEPS_RESTARTING, text, advice)
    if not failing and not killed:
        yield ok(KEEPS_RESTARTING, "no worker failed, none was killed for memory")


def order_findings(facts: SupervisionFacts, settings: Settings, queue_order: str) -> Iterator[Finding]:
    """Find urgent tasks that wait behind others."""
    shared = [pool for pool in settings.pools if "high" in pool.queues and len(pool.queues) > 1]
    with_low = [pool.name for pool in shared if "low" in pool.queues]
    if with_low:
        text = f"pool {with_low[0]} serves high and low: long tasks take the slots that urgent ones need"
        yield warning(HIGH_NOT_PRIORITISED, text, "run fast and slow (leave out --single)")
    elif shared and not queue_order:
        yield skipped(HIGH_NOT_PRIORITISED, "which queue comes first is this broker's own affair")
    elif shared and queue_order != "priority":
        yield note(
            HIGH_NOT_PRIORITISED,
            f"pool {shared[0].name} takes in turn from {', '.join(shared[0].queues)} ({queue_order})",
            "broker_transport_options = {'queue_order_strategy': 'priority'} empties high first",
        )
    else:
        yield ok(HIGH_NOT_PRIORITISED, "high does not wait for others")
    waiting = (facts.depths or {}).get("high", 0)
    if waiting >= 10:
        advice = "raise the concurrency of its pool, or start another container"
        yield warning(HIGH_NOT_PRIORITISED, f"{waiting} wait in high", advice)
