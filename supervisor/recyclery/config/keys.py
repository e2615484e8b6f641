"""The table of settings: each key with the check that its value must pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec.structs import replace

from recyclery.config import fields
from recyclery.config.settings import Memory, Pool

TOP_KEYS: dict[str, Callable[[Any], Any]] = {
    "app": fields.app_name,
    "log_level": fields.log_level,
    "grace_seconds": fields.grace_seconds,
    "log_format": fields.log_format,
    "max_deaths": fields.max_deaths,
    "death_window_seconds": fields.death_window_seconds,
    "watchdog_seconds": fields.watchdog_seconds,
    "http": fields.http_address,
    "drain_seconds": fields.drain_seconds,
}
MEMORY_KEYS: dict[str, Callable[[Any], Any]] = {
    "limit_bytes": fields.size_or_auto,
    "retire_percent": fields.percent,
    "high_percent": fields.percent,
    "risk_percent": fields.risk_percent,
    "hard_percent": fields.percent,
}
BROWSERS_KEYS: dict[str, Callable[[Any], Any]] = {
    "silent_seconds": fields.silent_seconds,
    "max_percent": fields.percent,
    "max_age_seconds": fields.max_age_seconds,
}
ALERTS_KEYS: dict[str, Callable[[Any], Any]] = {
    "format": fields.alert_format,
    "queue_depth": fields.alert_queue_depth,
    "success_percent": fields.alert_percent,
    "task_seconds": fields.seconds_by_queue,
    "memory_percent": fields.alert_percent,
    "restarts": fields.alert_restarts,
    "lasting_seconds": fields.lasting_seconds,
    "window_seconds": fields.window_seconds,
}
HISTORY_KEYS: dict[str, Callable[[Any], Any]] = {
    "max_bytes": fields.history_bytes,
    "seconds_hours": fields.seconds_hours,
    "minutes_days": fields.kept_days,
    "totals_days": fields.kept_days,
}
POOL_KEYS: dict[str, Callable[[Any], Any]] = {
    "queues": fields.queues,
    "concurrency": fields.concurrency_range,
    "max_tasks_per_child": fields.max_tasks_per_child,
    "implementation": fields.implementation,
    "celery_options": fields.celery_options,
    "reap_leftover_browsers": fields.truth,
    "max_task_deaths": fields.max_task_deaths,
}
T = TypeVar("T")


class BadConfiguration(Exception):
    """A setting that cannot be used; the message names it, its value, its source and what is allowed."""


def checked(check: Callable[[Any], T], name: str, value: Any, source: str) -> T:
    """Return the value checked; raises BadConfiguration."""
    try:
        return check(value)
    except fields.Refused as refused:
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
