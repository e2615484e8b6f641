"""Settings changed while the supervisor runs: one by `recyclery set`, all of them by a new look at the file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

from msgspec.structs import asdict, replace

from recyclery.config.keys import (
    ALERTS_KEYS,
    BROWSERS_KEYS,
    HISTORY_KEYS,
    MEMORY_KEYS,
    POOL_KEYS,
    BadConfiguration,
    checked,
    with_levels,
    with_values,
)
from recyclery.config.settings import Pool, Settings

LIVE_POOL_KEYS = ("concurrency", "max_tasks_per_child", "reap_leftover_browsers", "max_task_deaths")
LIVE_POOL_FIELDS = (*LIVE_POOL_KEYS, "concurrency_most")
TABLES: Mapping[str, Mapping[str, Any]] = {
    "memory": MEMORY_KEYS,
    "browsers": BROWSERS_KEYS,
    "alerts": ALERTS_KEYS,
    "history": HISTORY_KEYS,
}
LIVE_KEYS = ("drain_seconds",)
START_KEYS = (
    *("app", "log_level", "grace_seconds", "log_format"),
    *("max_deaths", "death_window_seconds", "watchdog_seconds", "http"),
)


def change_settings(settings: Settings, table: str, texts: Mapping[str, str]) -> Settings:
    """Return the settings with values of one pool or of another table changed; texts are as in the file.

    Raises BadConfiguration.
    """
    if table in TABLES:
        return change_table(settings, table, texts)
    found = next((pool for pool in settings.pools if pool.name == table), None)
    if found is None:
        known = ", ".join([*(pool.name for pool in settings.pools), *TABLES])
        raise BadConfiguration(f"{table!r} is no pool: there are {known}")
    changed = with_values(found, check_texts(table, POOL_KEYS, LIVE_POOL_KEYS, texts))
    return replace(settings, pools=tuple(changed if pool is found else pool for pool in settings.pools))


def change_table(settings: Settings, table: str, texts: Mapping[str, str]) -> Settings:
    """Return the settings with values of a table changed that is no pool's; raises BadConfiguration."""
    if table == "alerts" and "format" in texts:
        raise BadConfiguration("alerts format goes with the address, and takes effect at the next start")
    values = check_texts(table, TABLES[table], tuple(TABLES[table]), texts)
    if table == "memory":
        return replace(settings, memory=with_levels(replace(settings.memory, **values), "set"))
    return replace(settings, **{table: replace(getattr(settings, table), **values)})


def check_texts(
    table: str, checks: Mapping[str, Any], live: tuple[str, ...], texts: Mapping[str, str]
) -> dict[str, Any]:
    """Return the values of texts such as `5`, `true` or `{ min = 1, max = 4 }`; raises BadConfiguration."""
    values = {}
    for key, text in texts.items():
        if key not in live:
            known = "is taken from the file, by a HUP" if key in checks else "is not a setting"
            raise BadConfiguration(f"{table} {key} {known}: while it runs there are {', '.join(live)}")
        values[key] = checked(checks[key], f"{table} {key}", read_value(text), "by set")
    return values


def read_value(text: str) -> Any:
    """Return a TOML value; what is none is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def follow_file(running: Settings, fresh: Settings) -> tuple[Settings, list[str], list[str]]:
    """Return the running settings with what can be changed of the fresh ones, the changes, and what must wait.

    A pool whose worker cannot be changed while it runs gets a new one. A pool that is new or gone takes a new
    start of the supervisor.
    """
    changes: list[str] = []
    waiting: list[str] = []
    by_name = {pool.name: pool for pool in fresh.pools}
    pools = []
    for pool in running.pools:
        wanted = by_name.pop(pool.name, None)
        if wanted is None:
            waiting.append(f"{pool.name} is no longer named")
            pools.append(pool)
        else:
            pools.append(wanted)
            changes += differences(pool.name, pool, wanted)
            changes += [] if starts_alike(pool, wanted) else [f"{pool.name} gets a new worker for it"]
    waiting += [f"{name} is new" for name in by_name]
    # The form of alerts goes with the address, which is read at the start.
    alerts = replace(fresh.alerts, format=running.alerts.format)
    waiting += differences("alerts", alerts, fresh.alerts)
    tables = {name: alerts if name == "alerts" else getattr(fresh, name) for name in TABLES}
    for name, wanted_table in tables.items():
        changes += differences(name, getattr(running, name), wanted_table)
    live = {key: getattr(fresh, key) for key in LIVE_KEYS}
    for key, value in live.items():
        if getattr(running, key) != value:
            changes.append(f"{key} is {value}, was {getattr(running, key)}")
    for key in START_KEYS:
        if getattr(running, key) != getattr(fresh, key):
            waiting.append(f"{key} is {getattr(fresh, key)}")
    followed = replace(running, pools=tuple(pools), **tables, **live)
    return followed, changes, waiting


def starts_alike(pool: Pool, wanted: Pool) -> bool:
    """Tell whether a worker started for the one pool does for the other: what differs can be changed live."""
    return replace(pool, **{key: getattr(wanted, key) for key in LIVE_POOL_FIELDS}) == wanted


def differences(name: str, before: Any, after: Any) -> list[str]:
    """Say every field in which two settings differ."""
    old, new = asdict(before), asdict(after)
    return [f"{name} {key} is {new[key]}, was {old[key]}" for key in old if old[key] != new[key]]
