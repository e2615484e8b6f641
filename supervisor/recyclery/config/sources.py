"""Collects the settings: command line over environment over file over built-in, each value with its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from msgspec.structs import replace

from recyclery.config import fields
from recyclery.config.file import File, load_file
from recyclery.config.keys import POOL_KEYS, BadConfiguration, checked, with_levels, with_values
from recyclery.config.paths import find_runtime_dir, find_state_dir
from recyclery.config.secrets import read_webhook
from recyclery.config.settings import (
    BUILT_IN,
    SINGLE,
    Address,
    Alerts,
    Browsers,
    History,
    Memory,
    Pool,
    Settings,
)
from recyclery.config.slots import slots_of

POOL_VARIABLES = {
    "queues": "CELERY_QUEUES",
    "concurrency": "CELERY_CONCURRENCY",
    "max_tasks_per_child": "CELERY_MAX_TASKS_PER_CHILD",
}


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
    http: str | None = None


T = TypeVar("T")


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
        fields.size_or_auto,
        ("--memory-limit", line.memory_limit),
        ("RECYCLERY_MEMORY_LIMIT", given.get("RECYCLERY_MEMORY_LIMIT")),
        default=memory.limit_bytes,
    )
    memory = with_levels(memory, f"in {file.name}")
    app = choose(
        fields.app_name,
        ("--app", line.app),
        ("CELERY_APP", given.get("CELERY_APP")),
        default=file.top.get("app"),
    )
    if app is None:
        raise BadConfiguration("no Celery app is named: set CELERY_APP, --app, or `app` in the config file")
    return Settings(
        app=app,
        pools=with_slots(choose_pools(line, given, file)),
        runtime_dir=find_runtime_dir(given),
        state_dir=find_state_dir(given),
        memory=replace(memory, limit_bytes=limit),
        browsers=Browsers(**file.browsers),
        alerts=choose_alerts(given, file),
        history=History(**file.history),
        log_level=choose(
            fields.log_level,
            ("--log-level", line.log_level),
            ("CELERY_LOG_LEVEL", given.get("CELERY_LOG_LEVEL")),
            default=file.top.get("log_level", "info"),
        ),
        grace_seconds=choose(
            fields.grace_seconds,
            ("--grace", line.grace),
            ("RECYCLERY_GRACE", given.get("RECYCLERY_GRACE")),
            default=file.top.get("grace_seconds", 25.0),
        ),
        log_format=choose(
            fields.log_format,
            ("--log-format", line.log_format),
            ("RECYCLERY_LOG_FORMAT", given.get("RECYCLERY_LOG_FORMAT")),
            default=file.top.get("log_format", "text"),
        ),
        max_deaths=choose(
            fields.max_deaths,
            ("RECYCLERY_MAX_DEATHS", given.get("RECYCLERY_MAX_DEATHS")),
            default=file.top.get("max_deaths", 5),
        ),
        death_window_seconds=choose(
            fields.death_window_seconds,
            ("RECYCLERY_DEATH_WINDOW", given.get("RECYCLERY_DEATH_WINDOW")),
            default=file.top.get("death_window_seconds", 300.0),
        ),
        watchdog_seconds=choose(
            fields.watchdog_seconds,
            ("RECYCLERY_WATCHDOG", given.get("RECYCLERY_WATCHDOG")),
            default=file.top.get("watchdog_seconds", 30.0),
        ),
        http=choose_http(line, given, file),
        drain_seconds=choose(
            fields.drain_seconds,
            ("RECYCLERY_DRAIN", given.get("RECYCLERY_DRAIN")),
            default=file.top.get("drain_seconds", 600.0),
        ),
    )


def choose(check: Callable[[Any], T], *sources: tuple[str, Any], default: T) -> T:
    """Return the first source's value that was given, checked, else the default."""
    for name, value in sources:
        if value is not None:
            return checked(check, name, value, source_of(name))
    return default


def choose_alerts(given: Mapping[str, str], file: File) -> Alerts:
    """Return what is told by webhook, if the environment's words on where to go fit its form."""
    alerts = Alerts(**file.alerts)
    form = choose(
        fields.alert_format,
        ("RECYCLERY_ALERT_FORMAT", given.get("RECYCLERY_ALERT_FORMAT")),
        default=alerts.format,
    )
    read_webhook(given, form)
    return replace(alerts, format=form)


def choose_http(line: CommandLine, given: Mapping[str, str], file: File) -> Address | None:
    """Return where to serve HTTP and who said so; PORT is how platforms say where they probe."""
    address: Address | None = file.top.get("http")
    origin = f"http is {str(address)!r} (in {file.name})"
    for variable, value in (
        ("--http", line.http),
        ("RECYCLERY_HTTP", given.get("RECYCLERY_HTTP")),
        ("PORT", given.get("PORT")),
    ):
        if value is not None:
            address = checked(fields.http_address, variable, value, source_of(variable))
            origin = f"{variable} is {value!r} ({source_of(variable)})"
            break
    return address and replace(address, origin=origin)


def source_of(name: str) -> str:
    """Say where a setting of that name is given."""
    return "on the command line" if name.startswith("--") else "in the environment"


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


def with_slots(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    """Return the pools if none is named like another's spare slot; raises BadConfiguration."""
    names = {pool.name for pool in pools}
    for name in names:
        _, spare = slots_of(name)
        if spare in names:
            raise BadConfiguration(
                f"[pools] name is {spare!r}: so the worker is called that takes over from one of {name!r}; "
                "name one of the two otherwise"
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
        wanted = set(checked(fields.queues, "CELERY_QUEUES", given["CELERY_QUEUES"], "in the environment"))
        return next((pool for pool in configured if set(pool.queues) == wanted), SINGLE)
    name = checked(fields.pool_name, "CELERY_WORKER_NAME", given["CELERY_WORKER_NAME"], "in the environment")
    for pool in configured:
        if pool.name == name:
            return pool
    if "CELERY_QUEUES" not in given:
        raise BadConfiguration(
            f"CELERY_WORKER_NAME is {name!r} (in the environment): it must be one of "
            f"{', '.join(pool.name for pool in configured)}, or CELERY_QUEUES must say which queues it serves"
        )
    return replace(SINGLE, name=name)
