"""Collects the settings: command line over environment over file over built-in, each value with its source."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from recyclery.config import checks
from recyclery.config.paths import find_runtime_dir, find_state_dir
from recyclery.config.settings import BUILT_IN, SINGLE, Browsers, Memory, Pool, Settings

DEFAULT_FILE = Path("/etc/recyclery/recyclery.toml")

TOP_KEYS: dict[str, Callable[[Any], Any]] = {
    "app": checks.app_name,
    "log_level": checks.log_level,
    "grace_seconds": checks.grace_seconds,
    "log_format": checks.log_format,
    "max_deaths": checks.max_deaths,
    "death_window_seconds": checks.death_window_seconds,
    "watchdog_seconds": checks.watchdog_seconds,
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
POOL_KEYS: dict[str, Callable[[Any], Any]] = {
    "queues": checks.queues,
    "concurrency": checks.concurrency_range,
    "max_tasks_per_child": checks.max_tasks_per_child,
    "implementation": checks.implementation,
    "celery_options": checks.celery_options,
    "reap_leftover_browsers": checks.truth,
}
TABLES = ("memory", "browsers", "pools")
POOL_VARIABLES = {
    "queues": "CELERY_QUEUES",
    "concurrency": "CELERY_CONCURRENCY",
    "max_tasks_per_child": "CELERY_MAX_TASKS_PER_CHILD",
}

T = TypeVar("T")


class BadConfiguration(Exception):
    """A setting that cannot be used; the message names it, its value, its source and what is allowed."""


@dataclass(frozen=True)
class CommandLine:
    """What `recyclery run` was told; None where it was not."""

    config: str | None = None
    app: str | None = None
    single: bool = False
    pools: tuple[str, ...] = ()
    grace: str | None = None
    log_level: str | None = None
    log_format: str | None = None
    memory_limit: str | None = None


@dataclass(frozen=True)
class File:
    """A configuration file, checked: values by key, and its pools by name (None: it has none)."""

    name: str = ""
    top: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    browsers: dict[str, Any] = field(default_factory=dict)
    pools: tuple[Pool, ...] | None = None


def load(line: CommandLine, environment: Mapping[str, str]) -> Settings:
    """Return the settings; raises BadConfiguration for the first value that cannot be used."""
    # A variable that is set and empty counts as not set, as Compose's `${NAME:-}` makes it; not so the
    # queues: a worker on queues that nobody named would take other people's tasks.
    given = {
        name: value.strip() for name, value in environment.items() if value.strip() or name == "CELERY_QUEUES"
    }
    file = load_file(line.config, environment)
    memory = Memory(**file.memory)
    limit = choose(
        checks.size_or_auto,
        ("--memory-limit", line.memory_limit),
        ("RECYCLERY_MEMORY_LIMIT", given.get("RECYCLERY_MEMORY_LIMIT")),
        default=memory.limit_bytes,
    )
    memory = with_levels(memory, f"in {file.name}")
    app = choose(
        checks.app_name,
        ("--app", line.app),
        ("CELERY_APP", given.get("CELERY_APP")),
        default=file.top.get("app"),
    )
    if app is None:
        raise BadConfiguration("no Celery app is named: set CELERY_APP, --app, or `app` in the config file")
    return Settings(
        app=app,
        pools=choose_pools(line, given, file),
        runtime_dir=find_runtime_dir(given),
        state_dir=find_state_dir(given),
        memory=replace(memory, limit_bytes=limit),
        browsers=Browsers(**file.browsers),
        log_level=choose(
            checks.log_level,
            ("--log-level", line.log_level),
            ("CELERY_LOG_LEVEL", given.get("CELERY_LOG_LEVEL")),
            default=file.top.get("log_level", "info"),
        ),
        grace_seconds=choose(
            checks.grace_seconds,
            ("--grace", line.grace),
            ("RECYCLERY_GRACE", given.get("RECYCLERY_GRACE")),
            default=file.top.get("grace_seconds", 25.0),
        ),
        log_format=choose(
            checks.log_format,
            ("--log-format", line.log_format),
            ("RECYCLERY_LOG_FORMAT", given.get("RECYCLERY_LOG_FORMAT")),
            default=file.top.get("log_format", "text"),
        ),
        max_deaths=choose(
            checks.max_deaths,
            ("RECYCLERY_MAX_DEATHS", given.get("RECYCLERY_MAX_DEATHS")),
            default=file.top.get("max_deaths", 5),
        ),
        death_window_seconds=choose(
            checks.death_window_seconds,
            ("RECYCLERY_DEATH_WINDOW", given.get("RECYCLERY_DEATH_WINDOW")),
            default=file.top.get("death_window_seconds", 300.0),
        ),
        watchdog_seconds=choose(
            checks.watchdog_seconds,
            ("RECYCLERY_WATCHDOG", given.get("RECYCLERY_WATCHDOG")),
            default=file.top.get("watchdog_seconds", 30.0),
        ),
    )


def choose(check: Callable[[Any], T], *sources: tuple[str, Any], default: T) -> T:
    """Return the first source's value that was given, checked, else the default."""
    for name, value in sources:
        if value is not None:
            return checked(check, name, value, source_of(name))
    return default


def source_of(name: str) -> str:
    """Say where a setting of that name is given."""
    return "on the command line" if name.startswith("--") else "in the environment"


def checked(check: Callable[[Any], T], name: str, value: Any, source: str) -> T:
    """Return the value checked; raises BadConfiguration."""
    try:
        return check(value)
    except checks.Refused as refused:
        raise BadConfiguration(f"{name} is {value!r} ({source}): it must be {refused}") from None


def choose_pools(line: CommandLine, given: Mapping[str, str], file: File) -> tuple[Pool, ...]:
    """Return the pools to run, with the guide's environment variables laid over where one pool runs."""
    configured = BUILT_IN if file.pools is None else file.pools
    if line.single:
        pools: tuple[Pool, ...] = (SINGLE,)
    elif line.pools:
        pools = tuple(named_pool(name, configured) for name in dict.fromkeys(line.pools))
    elif "CELERY_QUEUES" in given or "CELERY_WORKER_NAME" in given:
        pools = (pool_of_environment(given, configured),)
    else:
        pools = configured
    values: dict[str, Any] = {
        key: checked(POOL_KEYS[key], variable, given[variable], "in the environment")
        for key, variable in POOL_VARIABLES.items()
        if variable in given
    }
    if len(pools) == 1:
        return (with_values(pools[0], values),)
    for key, value in values.items():
        raise BadConfiguration(
            f"{POOL_VARIABLES[key]} is {value!r} (in the environment), but {len(pools)} pools would run "
            f"({', '.join(pool.name for pool in pools)}): say which it is for with CELERY_WORKER_NAME, "
            "or set it in the config file"
        )
    return pools


def named_pool(name: str, configured: tuple[Pool, ...]) -> Pool:
    """Return the configured pool of that name; raises BadConfiguration."""
    for pool in configured:
        if pool.name == name:
            return pool
    known = ", ".join(pool.name for pool in configured)
    raise BadConfiguration(f"--pool is {name!r} (on the command line): it must be one of {known}")


def pool_of_environment(given: Mapping[str, str], configured: tuple[Pool, ...]) -> Pool:
    """Return the pool that CELERY_WORKER_NAME, or the queues alone, name; raises BadConfiguration."""
    if "CELERY_WORKER_NAME" not in given:
        wanted = set(checked(checks.queues, "CELERY_QUEUES", given["CELERY_QUEUES"], "in the environment"))
        return next((pool for pool in configured if set(pool.queues) == wanted), SINGLE)
    name = checked(checks.pool_name, "CELERY_WORKER_NAME", given["CELERY_WORKER_NAME"], "in the environment")
    for pool in configured:
        if pool.name == name:
            return pool
    if "CELERY_QUEUES" not in given:
        raise BadConfiguration(
            f"CELERY_WORKER_NAME is {name!r} (in the environment): it must be one of "
            f"{', '.join(pool.name for pool in configured)}, or CELERY_QUEUES must say which queues it serves"
        )
    return replace(SINGLE, name=name)


def load_file(named: str | None, environment: Mapping[str, str]) -> File:
    """Return the config file that was named, or the one in /etc, or an empty one."""
    name = named or environment.get("RECYCLERY_CONFIG") or None
    path = Path(name) if name else DEFAULT_FILE
    if name is None and not path.exists():
        return File()
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"config file {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(f"config file {path} is not TOML: {error}") from None
    return check_file(str(path), document)


def check_file(name: str, document: dict[str, Any]) -> File:
    """Return the file with every value checked; raises BadConfiguration."""
    memory = table(name, document, "memory")
    browsers = table(name, document, "browsers")
    pools = table(name, document, "pools")
    top = {key: value for key, value in document.items() if key not in TABLES}
    return File(
        name=name,
        top=check_keys(name, "", TOP_KEYS, top),
        memory=check_keys(name, "[memory] ", MEMORY_KEYS, memory or {}),
        browsers=check_keys(name, "[browsers] ", BROWSERS_KEYS, browsers or {}),
        pools=None if pools is None else tuple(check_pool(name, key, pools[key]) for key in pools),
    )


def table(name: str, document: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the table of that key, None where there is none; raises BadConfiguration."""
    value = document.get(key)
    if value is not None and (not isinstance(value, dict) or (key == "pools" and not value)):
        raise BadConfiguration(f"`{key}` in {name} must be a table, as [{key}] begins one")
    return value


def check_keys(
    name: str, prefix: str, keys: Mapping[str, Callable[[Any], Any]], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values checked by the table of keys; raises BadConfiguration, for an unknown key too."""
    for key in values:
        if key not in keys:
            raise BadConfiguration(f"{prefix}{key} (in {name}) is not a setting: there are {', '.join(keys)}")
    return {key: checked(keys[key], f"{prefix}{key}", value, f"in {name}") for key, value in values.items()}


def check_pool(file_name: str, pool_name: str, values: Any) -> Pool:
    """Return one [pools.NAME] table as a pool, with the built-in one's values where it has none."""
    checked(checks.pool_name, "[pools] name", pool_name, f"in {file_name}")
    if not isinstance(values, dict):
        raise BadConfiguration(f"`pools.{pool_name}` in {file_name} must be a table")
    given = check_keys(file_name, f"[pools.{pool_name}] ", POOL_KEYS, values)
    base = next((pool for pool in BUILT_IN if pool.name == pool_name), None)
    if base is None and "queues" not in given:
        raise BadConfiguration(f"[pools.{pool_name}] in {file_name} needs `queues`")
    return with_values(replace(base or SINGLE, name=pool_name), given)


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
