"""The settings as frozen structs, how they change while the supervisor runs, and how they are stored.

Each is declared once, with its range, its help and its sources.

A `live` one can be changed while the supervisor runs, by `recyclery set` and by a HUP. Others take effect at
the next start; those of a pool also by a HUP, which gives the pool a new worker.
"""

import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from recyclery.common.units import MIB
from recyclery.config.fields import (
    BadConfiguration,
    NotAllowed,
    Setting,
    checked,
    declared,
    live,
    load_toml,
    parse_app_name,
    parse_bytes_by_task,
    parse_celery_options,
    parse_concurrency,
    parse_log_level,
    parse_queues,
    parse_seconds_by_queue,
    setting,
    settings_of,
    size_of_at_least,
    whole_number,
)
from recyclery_worker.link import DEFAULT_MAX_DEATHS

HTTP_ADDRESS = re.compile(r"(?:(?:\[(?P<v6>[^\]]+)\]|(?P<host>[^:\[\]]*)):)?(?P<port>[0-9]{1,5})")
# click takes short options in one word: -EB.
BEAT_OPTION = re.compile(r"--beat|-E*B.*")
BACKLOG = 64
KEY_WIDTH = 22
Table = TypeVar("Table", bound=Struct)
# How tasks run, in the words of `celery worker -P`.
Implementation = Literal["prefork", "threads", "gevent", "eventlet", "solo"]


class Pool(Struct, frozen=True, kw_only=True):
    """One Celery worker: its queues, its children, and the handling of their leftovers."""

    name: str
    queues: Annotated[
        tuple[str, ...], setting("the queues it takes tasks from", parse=parse_queues, env="CELERY_QUEUES")
    ]
    concurrency: Annotated[
        int, live("tasks at a time, or { min = 1, max = 4 }", parse=parse_concurrency, env="CELERY_CONCURRENCY")
    ]
    """Where `concurrency_most` is higher, the initial and the lowest concurrency."""
    max_tasks_per_child: Annotated[
        int, live("tasks after which a child is replaced", 1, 1_000_000, env="CELERY_MAX_TASKS_PER_CHILD")
    ]
    implementation: Annotated[Implementation, setting("how tasks run, as in celery worker -P")] = "prefork"
    celery_options: Annotated[
        tuple[str, ...], setting("further options for `celery worker`", parse=parse_celery_options)
    ] = ()
    concurrency_most: Annotated[int | None, live(parse=whole_number(1, 1000))] = None
    """Set by `concurrency`, where that is a range."""
    reap_leftover_browsers: Annotated[bool, live("kill browsers that a finished task left")] = True
    max_task_deaths: Annotated[int, live("deaths after which a task is parked; 0: never", 0, 1000)] = (
        DEFAULT_MAX_DEATHS
    )
    max_task_bytes: Annotated[
        dict[str, int] | None,
        live("memory that a task may take, for all or by name", parse=parse_bytes_by_task, none="off"),
    ] = None
    """By task name, `*` for all others."""

    @property
    def limits_tasks(self) -> bool:
        """Whether any task of it has a memory limit."""
        return self.max_task_bytes is not None

    def task_limit_bytes(self, task_name: str | None) -> int | None:
        """Return what a task may take; None where it has no limit."""
        limits = self.max_task_bytes or {}
        return limits.get(task_name or "", limits.get("*"))

    @property
    def most_task_bytes(self) -> int | None:
        """What the task with the highest limit may take; None where one has no limit."""
        limits = self.max_task_bytes or {}
        return max(limits.values()) if "*" in limits else None

    @property
    def least(self) -> int:
        """The lowest concurrency the governor may set."""
        return self.concurrency

    @property
    def most(self) -> int:
        """The highest concurrency the governor may set."""
        return max(self.concurrency, self.concurrency_most or 0)

    @property
    def slots(self) -> tuple[str, str]:
        """The two slots of its worker: its own, and a spare one in which a successor starts.

        A slot's name is that of supervisord's program, of the node (before the @) and of the link's socket.
        """
        return self.name, f"{self.name}-b"

    def other_slot(self, slot: str) -> str:
        """Return the slot that is not this one."""
        own, spare = self.slots
        return spare if slot == own else own

    @property
    def forks(self) -> bool:
        """Whether tasks run in child processes, not in the worker's main process."""
        return self.implementation == "prefork"

    @property
    def runs_beat(self) -> bool:
        """Whether its worker has a beat inside, of which there must be one only."""
        return any(BEAT_OPTION.fullmatch(option) for option in self.celery_options)


class Memory(Struct, frozen=True, kw_only=True):
    """The limit (None: the cgroup's, else the machine's), its levels in percent, and the risk taken."""

    limit_bytes: Annotated[
        int | None,
        live(
            "memory limit, such as 1GiB; auto: the cgroup's",
            parse=size_of_at_least(64 * MIB),
            none="auto",
            env="RECYCLERY_MEMORY_LIMIT",
            flag="--memory-limit SIZE",
        ),
    ] = None
    retire_percent: Annotated[int, live("share of the limit that children may use", 10, 100)] = 80
    high_percent: Annotated[int, live("above this, a pool may pause consuming", 10, 100)] = 90
    hard_percent: Annotated[int, live("from this on, the largest child is killed", 10, 100)] = 95
    risk_percent: Annotated[float, live("chance that a child exceeds its share", 0.01, 50)] = 1.0


class Browsers(Struct, frozen=True, kw_only=True):
    """When a browser is a runaway: its task was idle for some time, and it is too large or too old."""

    silent_seconds: Annotated[float, live("how long its task must be idle; 0: never kill", 0, 86_400)] = 300.0
    max_percent: Annotated[int, live("share of the memory limit it may use", 10, 100)] = 75
    max_age_seconds: Annotated[float, live("how long one task may have it", 1, 604_800)] = 21600.0


class Alerts(Struct, frozen=True, kw_only=True):
    """The alert rules and the webhook's format, which depends on its address; 0 turns a rule off."""

    format: Annotated[
        Literal["json", "slack", "pagerduty"], setting("whose format alerts have", env="RECYCLERY_ALERT_FORMAT")
    ] = "json"
    queue_depth: Annotated[int, live("tasks that wait for one pool", 0, 1_000_000)] = 10
    success_percent: Annotated[int, live("share of a pool's tasks that must succeed", 0, 100)] = 95
    task_seconds: Annotated[
        dict[str, float], live("how long tasks may run, by queue", parse=parse_seconds_by_queue)
    ] = msgspec.field(default_factory=lambda: {"high": 10.0, "default": 300.0})
    memory_percent: Annotated[int, live("share of the limit that is unreclaimable", 0, 100)] = 92
    restarts: Annotated[int, live("restarts of a worker that died or hung", 0, 1000)] = 3
    lasting_seconds: Annotated[float, live("how long a condition lasts before it is sent", 0, 3600)] = 60.0
    window_seconds: Annotated[float, live("time over which events are counted", 10, 3600)] = 600.0


class HistorySettings(Struct, frozen=True, kw_only=True):
    """Size of the history's file, and the age up to which each kind of record is kept."""

    max_bytes: Annotated[int, live("size of the file at most", 8 * MIB)] = 100 * MIB
    seconds_hours: Annotated[float, live("how long samples by second are kept", 0.1, 720)] = 24.0
    minutes_days: Annotated[float, live("how long samples by minute are kept", 0.1, 3650)] = 14.0
    totals_days: Annotated[float, live("how long daily sums and actions are kept", 0.1, 3650)] = 90.0


class Address(Struct, frozen=True, kw_only=True):
    """Where HTTP is served: an IP address or `localhost` ("": every interface); `origin` is its source."""

    host: str
    port: int
    origin: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def open_listener(address: Address) -> socket.socket:
    """Listen on the address, for IPv4 and IPv6 where it names no host; raises OSError."""
    is_dual = not address.host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual or ":" in address.host else socket.AF_INET
    where = (address.host, address.port)
    return socket.create_server(where, family=family, dualstack_ipv6=is_dual, backlog=BACKLOG)


def parse_address(value: Any) -> Address:
    """Return the address of a port (on every interface), or of ADDRESS:PORT."""
    found = isinstance(value, int | str) and HTTP_ADDRESS.fullmatch(str(value))
    if found and 1 <= int(found["port"]) <= 65535:
        host = found["v6"] or found["host"] or ""
        with contextlib.suppress(ValueError):
            if host in {"", "localhost"} or (ipaddress.ip_address(host).version == 6) == bool(found["v6"]):
                return Address(host=host, port=int(found["port"]))
    raise NotAllowed("a port from 1 to 65535, ADDRESS:PORT such as 127.0.0.1:8080 or [::1]:8080")


class Settings(Struct, frozen=True, kw_only=True):
    """All settings of `recyclery run`."""

    app: Annotated[
        str,
        setting(
            "the Celery app, as celery -A takes it", parse=parse_app_name, env="CELERY_APP", flag="--app APP"
        ),
    ]
    pools: tuple[Pool, ...]
    runtime_dir: Path
    state_dir: Path = Path("/var/lib/recyclery")
    memory: Memory = Memory()
    browsers: Browsers = Browsers()
    alerts: Alerts = Alerts()
    history: HistorySettings = HistorySettings()
    log_level: Annotated[
        str,
        setting(
            "debug, info, warning, error or critical",
            parse=parse_log_level,
            env="CELERY_LOG_LEVEL",
            flag="--log-level LEVEL",
        ),
    ] = "info"
    grace_seconds: Annotated[
        float,
        setting(
            "time that running tasks have when stopped", 1, 3600, env="RECYCLERY_GRACE", flag="--grace SECONDS"
        ),
    ] = 25.0
    log_format: Annotated[
        Literal["text", "json"], setting("text or json", env="RECYCLERY_LOG_FORMAT", flag="--log-format FORMAT")
    ] = "text"
    max_deaths: Annotated[
        int, setting("deaths of a pool's worker that are too many", 1, 1000, env="RECYCLERY_MAX_DEATHS")
    ] = 5
    death_window_seconds: Annotated[
        float, setting("time over which deaths are counted", 1, 86_400, env="RECYCLERY_DEATH_WINDOW")
    ] = 300.0
    watchdog_seconds: Annotated[
        float, setting("longest silence of the governor", 5, 3600, env="RECYCLERY_WATCHDOG")
    ] = 30.0
    http: Annotated[
        Address | None,
        setting(
            "serve the page, metrics and probes, as on 127.0.0.1:8080",
            parse=parse_address,
            none="off",
            env=("RECYCLERY_HTTP", "PORT"),
            flag="--http ADDRESS",
        ),
    ] = None
    drain_seconds: Annotated[
        float, live("time for a replaced worker's tasks", 1, 86_400, env="RECYCLERY_DRAIN")
    ] = 600.0


# The file's tables except the pools; `recyclery set` takes them too.
TABLES: dict[str, type[Struct]] = {
    "memory": Memory,
    "browsers": Browsers,
    "alerts": Alerts,
    "history": HistorySettings,
}

FAST = Pool(name="fast", queues=("high", "default"), concurrency=3, max_tasks_per_child=100)
SLOW = Pool(name="slow", queues=("low",), concurrency=1, max_tasks_per_child=10)
SINGLE = Pool(name="worker", queues=("high", "default", "low"), concurrency=2, max_tasks_per_child=10)
BUILT_IN = (FAST, SLOW)


def with_values(pool: Pool, values: Mapping[str, Any]) -> Pool:
    """Return the pool with checked values replaced; a concurrency may be a range."""
    if "concurrency" in values:
        least, most = values["concurrency"]
        values = {**values, "concurrency": least, "concurrency_most": most}
    return replace(pool, **values)


def check_task_limit(pool: Pool, source: str) -> None:
    """Raise BadConfiguration where a pool without children has a limit for its tasks."""
    if pool.limits_tasks and not pool.forks:
        raise BadConfiguration(
            f"{pool.name} max_task_bytes is set ({source}), and its implementation is {pool.implementation}: "
            "only in a prefork pool can one task's memory be told from another's"
        )


def check_levels(memory: Memory, source: str) -> None:
    """Raise BadConfiguration where the memory levels are not in order."""
    if not memory.retire_percent < memory.high_percent < memory.hard_percent:
        raise BadConfiguration(
            f"[memory] retire_percent, high_percent and hard_percent are {memory.retire_percent}, "
            f"{memory.high_percent} and {memory.hard_percent} ({source}): each must be above the one before"
        )


def change_settings(settings: Settings, table: str, texts: Mapping[str, str]) -> Settings:
    """Return the settings with values of one pool or of another table changed; texts are as in the file.

    Raises BadConfiguration.
    """
    if table in TABLES:
        values = check_texts(table, TABLES[table], texts)
        changed = replace(settings, **{table: replace(getattr(settings, table), **values)})
        check_levels(changed.memory, "set")
        return changed
    pools = {pool.name: pool for pool in settings.pools}
    if table not in pools:
        raise BadConfiguration(f"{table!r} is no pool: there are {', '.join([*pools, *TABLES])}")
    pools[table] = with_values(pools[table], check_texts(table, Pool, texts))
    check_task_limit(pools[table], "by set")
    return replace(settings, pools=tuple(pools.values()))


def check_texts(name: str, table: type[Struct], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of texts such as `5`, `true` or `{ min = 1, max = 4 }`; raises BadConfiguration."""
    known = settings_of(table)
    changeable = {key: each for key, each in known.items() if each.live}
    values = {}
    for key, text in texts.items():
        if key not in changeable:
            later = "is taken from the file, by a HUP" if table is Pool else "takes effect at the next start"
            problem = later if key in known else "is not a setting"
            raise BadConfiguration(f"{name} {key} {problem}: while it runs there are {', '.join(changeable)}")
        values[key] = checked(changeable[key].parse, f"{name} {key}", parse_toml_value(text), "by set")
    return values


def parse_toml_value(text: str) -> Any:
    """Return a TOML value; text that is none stays text."""
    try:
        return load_toml(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def follow_file(running: Settings, fresh: Settings) -> tuple[Settings, list[str], list[str]]:
    """Return the running settings with the live ones of `fresh`, the changes, and what needs a restart.

    A pool with other changes gets a new worker. A pool that was added or removed needs a restart of the
    supervisor.
    """
    changes: list[str] = []
    pools, fresh_pools = ({pool.name: pool for pool in each.pools} for each in (running, fresh))
    waiting = [f"{name} is no longer named" for name in pools if name not in fresh_pools]
    waiting += [f"{name} is new" for name in fresh_pools if name not in pools]
    for name, before in pools.items():
        after = pools[name] = fresh_pools.get(name, before)
        changes += [f"{name} {each.name} is {new}, was {old}" for each, old, new in differences(before, after)]
        if not starts_alike(before, after):
            changes.append(f"{name} gets a new worker for it")
    tables = {name: (getattr(running, name), getattr(fresh, name)) for name in TABLES}
    for name, pair in (*tables.items(), ("", (running, fresh))):
        for each, old, new in differences(*pair):
            is_new = f"{name} {each.name} is {new}".lstrip()
            if each.live:
                changes.append(f"{is_new}, was {old}")
            else:
                waiting.append(is_new)
    changed = {name: with_live(*pair) for name, pair in tables.items()}
    return replace(with_live(running, fresh), pools=tuple(pools.values()), **changed), changes, waiting


def starts_alike(pool: Pool, other: Pool) -> bool:
    """Return whether a worker started for one pool fits the other: all differences can be changed live."""
    return all(each.live for each, _, _ in differences(pool, other))


def with_live(before: Table, after: Table) -> Table:
    """Return the first table with the live settings of the second."""
    return replace(before, **{each.name: new for each, _, new in differences(before, after) if each.live})


def differences(before: Struct, after: Struct) -> Iterator[tuple[Setting, Any, Any]]:
    """Yield every setting that differs between two tables, with both values."""
    for name, each in declared(type(before)).items():
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            yield each, old, new


def describe_settings() -> str:
    """Return a line for each setting that can be changed live, of pools and of each table."""
    lines = []
    for name, table in {"POOL": Pool, **TABLES}.items():
        changeable = [each for each in settings_of(table).values() if each.live]
        lines += [f"{name}:", *(f"  {each.name:{KEY_WIDTH}} {each.describe()}" for each in changeable)]
    return "\n".join(lines)


def write_settings(settings: Settings) -> None:
    """Store them in the runtime folder, for each governor that starts; atomic, private; raises OSError."""
    path = settings.runtime_dir / "settings.json"
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(settings, enc_hook=str))
    new.chmod(0o600)
    new.replace(path)


def read_settings(directory: Path) -> Settings:
    """Return the settings stored in a runtime folder."""
    stored = (directory / "settings.json").read_bytes()
    # Paths are the one kind of values that msgspec does not know.
    return msgspec.json.decode(stored, type=Settings, dec_hook=lambda path, text: path(text))
