"""The table of settings: each key with the check that its value must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from recyclery.config import checks
from recyclery.config.settings import Memory, Pool

TOP_KEYS: dict[str, Callable[[Any], Any]] = {
    "app": checks.app_name,
    "log_level": checks.log_level,
    "grace_seconds": checks.grace_seconds,
    "log_format": checks.log_format,
    "max_deaths": checks.max_deaths,
    "death_window_seconds": checks.death_window_seconds,
    "watchdog_seconds": checks.watchdog_seconds,
    "http": checks.http_address,
    "drain_seconds": checks.drain_seconds,
}
MEMORY_KEYS: dict[str, Callable[[Any], Any]] = {
    "limit_bytes": checks.size_or_auto,
    "retire_percent": checks.percent,
    "high_percent": checks.percent,
    "risk_percent": checks.risk_percent,
    "hard_percent": checks.percent,
}
BROWSERS_KEYS: dict[str, Callable[[Any], Any]] = {
    "silent_seconds": checks.silent_seconds,
    "max_percent": checks.percent,
    "max_age_seconds": checks.max_age_seconds,
}
ALERTS_KEYS: dict[str, Callable[[Any], Any]] = {
    "format": checks.alert_format,
    "queue_depth": checks.alert_queue_depth,
    "success_percent": checks.alert_percent,
    "task_seconds": checks.seconds_by_queue,
    "memory_percent": checks.alert_percent,
    "restarts": checks.alert_restarts,
    "lasting_seconds": checks.lasting_seconds,
    "window_seconds": checks.window_seconds,
}
HISTORY_KEYS: dict[str, Callable[[Any], Any]] = {
    "max_bytes": checks.history_bytes,
    "seconds_hours": checks.seconds_hours,
    "minutes_days": checks.kept_days,
    "totals_days": checks.kept_days,
}
POOL_KEYS: dict[str, Callable[[Any], Any]] = {
    "queues": checks.queues,
    "concurrency": checks.concurrency_range,
    "max_tasks_per_child": checks.max_tasks_per_child,
    "implementation": checks.implementation,
    "celery_options": checks.celery_options,
    "reap_leftover_browsers": checks.truth,
    "max_task_deaths": checks.max_task_deaths,
}
T = TypeVar("T")


class BadConfiguration(Exception):
    """A setting that cannot be used; the message names it, its value, its source and what is allowed."""


def checked(check: Callable[[Any], T], name: str, value: Any, source: str) -> T:
    """Return the value checked; raises BadConfiguration."""
    try:
        return check(value)
    except checks.Refused as refused:
        raise BadConfiguration(f"{name} is {value!r} ({source}): it must be {refused}") from None


def check_keys(
    name: str, prefix: str, keys: Mapping[str, Callable[[Any], Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values checked by the table of keys; raises BadConfiguration, for an unknown key too."""
    for key in values:
        if key not in keys:
            raise BadConfiguration(f"{prefix}{key} (in {name}) is not a setting: there are {', '.join(keys)}")
    return {key: checked(keys[key], f"{prefix}{key}", value, f"in {name}") for key, value in values.items()}


def with_levels(memory: Memory, source: str) -> Memory:
    """Return the memory settings if their levels are in order; raises BadConfiguration."""
    if not memory.retire_percent < memory.high_percent < memory.hard_percent:
        raise BadConfiguration(
            f"[memory] retire_percent, high_percent and hard_percent are {memory.retire_percent}, "
            f"{memory.high_percent} and {memory.hard_percent} ({source}): each must be above the one before"
        )
    return memory


def with_values(pool: Pool, values: Mapping[str, Any]) -> Pool:
    """Return the pool with checked values laid over it; a concurrency may be a range."""
    given = dict(values)
    if "concurrency" in given:
        given["concurrency"], given["concurrency_most"] = given["concurrency"]
    return replace(pool, **given)
