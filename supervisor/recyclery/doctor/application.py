"""The user's Celery app: its time limits, its delivery settings, and what of Celery our pool rests on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import celery
from celery import Celery

from recyclery.config.settings import Settings
from recyclery.doctor.findings import Finding, failure, note, ok, warning
from recyclery_worker.compat import missing


@dataclass(frozen=True)
class AppFacts:
    """What the app says of itself. Limits in seconds; None: a task without one."""

    celery_version: str
    missing_hooks: tuple[str, ...]
    tasks: int
    unlimited_tasks: tuple[str, ...]
    longest_task: str | None
    longest_seconds: float | None
    early_tasks: tuple[str, ...]
    """Tasks that are acknowledged before they run, by their own or the app's word."""
    visibility_seconds: float | None
    own_keys: tuple[str, ...]
    """The transport options that name keys for unacknowledged messages."""
    queue_order: str
    imports_browser: bool


def look_at_app(app: Celery, *, imports_browser: bool) -> AppFacts:
    """Read an app that is finalized."""
    tasks = {name: app.tasks[name] for name in app.tasks if not name.startswith("celery.")}
    limits = {name: limit_of(app, task) for name, task in tasks.items()}
    limited = {name: seconds for name, seconds in limits.items() if seconds is not None}
    longest = max(limited, key=lambda name: limited[name]) if limited else None
    options: dict[str, Any] = app.conf.broker_transport_options or {}
    return AppFacts(
        celery_version=celery.__version__,
        missing_hooks=missing("pool"),
        tasks=len(tasks),
        unlimited_tasks=tuple(sorted(name for name, seconds in limits.items() if seconds is None)),
        longest_task=longest,
        longest_seconds=limited[longest] if longest else None,
        early_tasks=tuple(sorted(name for name, task in tasks.items() if says_early(app, task))),
        visibility_seconds=options.get("visibility_timeout"),
        own_keys=tuple(sorted(key for key in options if key.startswith("unacked"))),
        queue_order=str(options.get("queue_order_strategy", "round_robin")),
        imports_browser=imports_browser,
    )


def limit_of(app: Celery, task: Any) -> float | None:
    """Return the time limit that ends a task for certain: the hard one, else the soft one."""
    for limit in (
        task.time_limit,
        app.conf.task_time_limit,
        task.soft_time_limit,
        app.conf.task_soft_time_limit,
    ):
        if limit is not None:
            return float(limit)
    return None


def says_early(app: Celery, task: Any) -> bool:
    """Tell whether somebody has said that a task is acknowledged early; nobody has by default."""
    from recyclery_worker.delivery.defaults import is_set  # noqa: PLC0415

    return not task.acks_late and ("acks_late" in vars(type(task)) or is_set(app.conf, "task_acks_late"))


def judge_app(facts: AppFacts, settings: Settings) -> Iterator[Finding]:
    """Say what of it can lose tasks or time."""
    if facts.missing_hooks:
        yield warning(
            "celery",
            f"Celery {facts.celery_version} lacks {', '.join(facts.missing_hooks)}: a child cannot be let go "
            "alone, the whole worker is replaced instead",
            "use a Celery from 5.5 to 5.7",
        )
    else:
        yield ok("celery", f"Celery {facts.celery_version} has all that the pool rests on")
    yield from judge_limits(facts, settings.grace_seconds)
    if facts.early_tasks:
        yield note(
            "acknowledgement",
            f"{some(facts.early_tasks)} are acknowledged before they run: lost with their process",
            "unless they must not run twice, leave out acks_late=False",
        )
    else:
        yield ok("acknowledgement", "tasks are acknowledged when they are done")
    yield from judge_visibility(facts)


def judge_limits(facts: AppFacts, grace_seconds: float) -> Iterator[Finding]:
    """Tasks that may never end, and tasks that a stop cannot wait for."""
    if facts.unlimited_tasks:
        yield warning(
            "time limits",
            f"{some(facts.unlimited_tasks)} of {facts.tasks} have no time limit: one that hangs stays",
            "set task_soft_time_limit and task_time_limit",
        )
    elif facts.tasks:
        yield ok("time limits", f"every task has one; the longest: {facts.longest_seconds:g} s")
    if facts.longest_seconds is not None and facts.longest_seconds > grace_seconds:
        yield note(
            "grace",
            f"{facts.longest_task} may run {facts.longest_seconds:g} s, a stop waits {grace_seconds:g} s: "
            "what is not done by then runs again elsewhere",
            "RECYCLERY_GRACE and the container's stop timeout, if it should be waited for",
        )


def judge_visibility(facts: AppFacts) -> Iterator[Finding]:
    """A broker that gives a task away while it runs."""
    if facts.own_keys:
        yield warning(
            "leases",
            f"broker_transport_options name {', '.join(facts.own_keys)}: what a dead worker held waits for the "
            "visibility timeout",
            "leave them out",
        )
    if facts.visibility_seconds is None:
        yield ok("visibility timeout", "not set: a worker's death is told by its lease")
    elif facts.longest_seconds is not None and facts.visibility_seconds <= facts.longest_seconds:
        yield failure(
            "visibility timeout",
            f"{facts.visibility_seconds:g} s, and {facts.longest_task} may run {facts.longest_seconds:g} s: "
            "it is given to another worker while it runs",
            "leave visibility_timeout out of broker_transport_options, or make it longer than the longest task",
        )
    else:
        yield ok("visibility timeout", f"{facts.visibility_seconds:g} s, longer than any task with a limit")


def some(names: tuple[str, ...]) -> str:
    """Name the first, and say how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
