"""The user's Celery app: its time limits, its delivery settings, and whether the pool works with its Celery."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import celery
from celery import Celery

from recyclery.common.units import format_mib
from recyclery.config.settings import Pool, Settings
from recyclery.doctor.findings import Finding, failure, note, ok, warning
from recyclery.observe.processes import read_kib, read_proc_file
from recyclery_worker.broker.connection import broker_kind
from recyclery_worker.compat import missing
from recyclery_worker.delivery.defaults import list_early_tasks
from recyclery_worker.parking.admission import why_not_parked

# RabbitMQ's own, since 3.8.17.
CONSUMER_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class AppFacts:
    """What the app's configuration and tasks state. Limits in seconds; None: a task without one."""

    celery_version: str
    missing_hooks: tuple[str, ...]
    tasks: int
    unlimited_tasks: tuple[str, ...]
    longest_task: str | None
    longest_seconds: float | None
    early_tasks: tuple[str, ...]
    """Tasks that are acknowledged as they begin, as the app was imported with our worker's defaults."""
    visibility_seconds: float | None
    own_keys: tuple[str, ...]
    """The transport options that name keys for unacknowledged messages."""
    queue_order: str
    """In which order a worker asks its queues; empty where that is the broker's affair."""
    broker_kind: str = "redis"
    not_parked: str = ""
    """Why a task that keeps killing its process is not parked; empty where it is."""
    max_memory_kib: int | None = None
    """The app's max-memory-per-child."""
    imported_kib: int = 0
    """The resident memory of this process, which has imported the app as a pool child's parent does."""


def read_app(app: Celery) -> AppFacts:
    """Read an app that was imported as our worker does it, and is finalized."""
    tasks = {name: app.tasks[name] for name in app.tasks if not name.startswith("celery.")}
    limits = {name: time_limit(app, task) for name, task in tasks.items()}
    limited = {name: seconds for name, seconds in limits.items() if seconds is not None}
    longest = max(limited, key=lambda name: limited[name], default=None)
    options: dict[str, Any] = app.conf.broker_transport_options or {}
    kind = broker_kind(app.connection_for_read())
    return AppFacts(
        celery_version=celery.__version__,
        missing_hooks=missing("pool"),
        tasks=len(tasks),
        unlimited_tasks=tuple(sorted(limits.keys() - limited.keys())),
        longest_task=longest,
        longest_seconds=limited[longest] if longest else None,
        early_tasks=list_early_tasks(app),
        visibility_seconds=options.get("visibility_timeout"),
        own_keys=tuple(sorted(key for key in options if key.startswith("unacked"))),
        queue_order=str(options.get("queue_order_strategy", "round_robin")) if kind == "redis" else "",
        broker_kind=kind,
        not_parked=why_not_parked(app, kind),
        max_memory_kib=app.conf.worker_max_memory_per_child,
        imported_kib=read_kib(read_proc_file("/proc/self/status"), b"\nVmRSS:"),
    )


def time_limit(app: Celery, task: Any) -> float | None:
    """Return the time limit that ends a task for certain: the hard one, else the soft one."""
    limits = (task.time_limit, app.conf.task_time_limit, task.soft_time_limit, app.conf.task_soft_time_limit)
    return next((float(limit) for limit in limits if limit is not None), None)


def app_findings(facts: AppFacts, settings: Settings) -> Iterator[Finding]:
    """Find what can lose tasks or time."""
    if facts.missing_hooks:
        yield warning(
            "celery",
            f"Celery {facts.celery_version} lacks {', '.join(facts.missing_hooks)}: single children cannot be "
            "replaced, the whole worker is replaced instead",
            "use a Celery from 5.5 to 5.7",
        )
    else:
        yield ok("celery", f"Celery {facts.celery_version} has everything that the pool needs")
    yield from limit_findings(facts, settings.grace_seconds)
    for pool in settings.pools:
        yield from max_memory_findings(facts, pool)
    if facts.early_tasks:
        text = f"acknowledged as they begin, so lost with their process: {format_names(facts.early_tasks)}"
        fix = "unless they must not run twice, leave out acks_late=False and task_acks_late=False"
        yield note("acknowledgement", text, fix)
    else:
        yield ok("acknowledgement", "tasks are acknowledged when they are done")
    if facts.not_parked:
        yield note("deaths", facts.not_parked, "docs/guarantees.md says what holds with which broker")
    if facts.broker_kind == "redis":
        yield from visibility_findings(facts)
    if facts.broker_kind == "amqp" and (facts.longest_seconds or 0) > CONSUMER_TIMEOUT_SECONDS:
        yield warning(
            "consumer timeout",
            f"{facts.longest_task} may run {facts.longest_seconds:g} s; RabbitMQ gives it to another worker "
            f"after {CONSUMER_TIMEOUT_SECONDS} s, unless told otherwise",
            "set RabbitMQ's consumer_timeout to more than the longest task",
        )


def limit_findings(facts: AppFacts, grace_seconds: float) -> Iterator[Finding]:
    """Find tasks that may never end, and tasks that outlast a stop."""
    if facts.unlimited_tasks:
        yield warning(
            "time limits",
            f"{format_names(facts.unlimited_tasks)} of {facts.tasks} have no time limit: one that hangs stays",
            "set task_soft_time_limit and task_time_limit",
        )
    elif facts.tasks:
        yield ok("time limits", f"every task has one; the longest: {facts.longest_seconds:g} s")
    if facts.longest_seconds is not None and facts.longest_seconds > grace_seconds:
        yield note(
            "grace",
            f"{facts.longest_task} may run {facts.longest_seconds:g} s, a stop waits {grace_seconds:g} s: "
            "a task that is not done by then runs again elsewhere",
            "raise RECYCLERY_GRACE and the container's stop timeout, if it should be waited for",
        )


def max_memory_findings(facts: AppFacts, pool: Pool) -> Iterator[Finding]:
    """Find a max-memory-per-child that every child passes."""
    most = max_memory_option(pool.celery_options) or facts.max_memory_kib
    if pool.forks and most and facts.imported_kib > most:
        yield warning(
            "max-memory-per-child",
            f"{format_mib(most << 10)}, and with the app imported a process has "
            f"{format_mib(facts.imported_kib << 10)}: each task of {pool.name} gets a new child",
            "leave it out, as children are retired by what they hold with their browsers, or raise it",
        )


def max_memory_option(options: tuple[str, ...]) -> int | None:
    """Return the --max-memory-per-child among a pool's options for Celery, in KiB."""
    words = iter(" ".join(options).replace("=", " ").split())
    values = [next(words, "") for word in words if word == "--max-memory-per-child"]
    return int(values[-1]) if values and values[-1].isdigit() else None


def visibility_findings(facts: AppFacts) -> Iterator[Finding]:
    """Find a broker that delivers a task again while it runs."""
    if facts.own_keys:
        yield warning(
            "leases",
            f"broker_transport_options name {', '.join(facts.own_keys)}: a dead worker's messages wait for the "
            "visibility timeout",
            "leave them out",
        )
    if facts.visibility_seconds is None:
        yield ok("visibility timeout", "not set: an expired lease shows that a worker is dead")
    elif facts.longest_seconds is not None and facts.visibility_seconds <= facts.longest_seconds:
        yield failure(
            "visibility timeout",
            f"{facts.visibility_seconds:g} s, and {facts.longest_task} may run {facts.longest_seconds:g} s: "
            "it is given to another worker while it runs",
            "leave visibility_timeout out of broker_transport_options, or make it longer than the longest task",
        )
    else:
        yield ok("visibility timeout", f"{facts.visibility_seconds:g} s, longer than any task with a limit")


def format_names(names: tuple[str, ...]) -> str:
    """Return the first name, and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
