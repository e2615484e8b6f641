"""Loads the settings: the command line overrides the environment, that the file, and that the defaults."""

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from recyclery.config.fields import (
    BadConfiguration,
    Setting,
    checked,
    load_toml,
    parse_pool_name,
    parse_queues,
    settings_of,
)
from recyclery.config.paths import find_runtime_dir, find_state_dir
from recyclery.config.secrets import read_webhook
from recyclery.config.settings import (
    BUILT_IN,
    SINGLE,
    TABLES,
    Pool,
    Settings,
    check_levels,
    check_task_limit,
    with_values,
)

DEFAULT_FILE = Path("/etc/recyclery/recyclery.toml")
IN_ENVIRONMENT = "in the environment"
ON_THE_LINE = "on the command line"
# An option or a variable, its text and its source.
Given: TypeAlias = tuple[str, str, str]


@dataclass(frozen=True)
class CommandLine:
    """The options of a command that name settings or their file."""

    config: str | None = None
    single: bool = False
    pools: tuple[str, ...] = ()
    options: Mapping[str, str | None] = field(default_factory=dict)
    """By name, such as `--grace`; None for an option that was not given."""


@dataclass(frozen=True)
class File:
    """A checked configuration file: values by table ("": the top level) and key, and its pools."""

    name: str = ""
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pools: tuple[Pool, ...] | None = None
    """None for a file without pools."""


def read_command_line(args: argparse.Namespace) -> CommandLine:
    """Return the options of a command that has all or some of those of `recyclery run`."""
    given = vars(args)
    options = {option: given.get(option.strip("-").replace("-", "_")) for option in with_options()}
    return CommandLine(args.config, given.get("single", False), tuple(given.get("pool", ())), options)


def with_options() -> dict[str, Setting]:
    """Return the settings that `recyclery run` has options for, by the name of the option."""
    tables = (Settings, *TABLES.values())
    return {each.option: each for table in tables for each in settings_of(table).values() if each.option}


def load_settings(line: CommandLine, environment: Mapping[str, str]) -> Settings:
    """Return the settings of this container; raises BadConfiguration for the first unusable value."""
    return load_deployment(line, environment)[0]


def load_deployment(line: CommandLine, environment: Mapping[str, str]) -> tuple[Settings, tuple[Pool, ...]]:
    """Return the settings of this container, and the pools of all containers; raises BadConfiguration."""
    # An empty variable counts as not set, as Compose's `${NAME:-}` leaves it, except for the queues: a worker
    # on queues that nobody named would take other people's tasks.
    texts = {
        name: value.strip() for name, value in environment.items() if value.strip() or name == "CELERY_QUEUES"
    }
    given = {name: (name, text, IN_ENVIRONMENT) for name, text in texts.items()}
    given |= {name: (name, text, ON_THE_LINE) for name, text in line.options.items() if text is not None}
    file = load_file(line.config, environment)
    tables: dict[str, Any] = {
        name: table(**collect_values(table, file.tables.get(name, {}), given)) for name, table in TABLES.items()
    }
    check_levels(tables["memory"], f"in {file.name}")
    read_webhook(texts, tables["alerts"].format)
    top = collect_values(Settings, file.tables.get("", {}), given)
    if "app" not in top:
        raise BadConfiguration("no Celery app is named: set CELERY_APP, --app, or `app` in the config file")
    if top.get("http"):
        http = settings_of(Settings)["http"]
        name, text, source = find_given(http, given) or ("http", str(top["http"]), f"in {file.name}")
        top["http"] = replace(top["http"], origin=f"{name} is {text!r} ({source})")
    pools = check_slots(choose_pools(line, given, file))
    settings = Settings(
        pools=pools, runtime_dir=find_runtime_dir(texts), state_dir=find_state_dir(texts), **tables, **top
    )
    return settings, pools if line.single else pools_everywhere(pools, file)


def collect_values(
    table: type[Struct], in_file: Mapping[str, Any], given: Mapping[str, Given]
) -> dict[str, Any]:
    """Return the values of a table that are given, each from the source with the highest priority."""
    found = ((each, find_given(each, given)) for each in settings_of(table).values())
    return {**in_file, **{each.name: checked(each.parse, *where) for each, where in found if where}}


def find_given(setting: Setting, given: Mapping[str, Given]) -> Given | None:
    """Return the option, else the variable that gives a setting; None for neither."""
    variables = (setting.env,) if isinstance(setting.env, str) else setting.env
    return next((given[name] for name in (setting.option, *variables) if name in given), None)


def load_file(named: str | None, environment: Mapping[str, str]) -> File:
    """Return the named config file, else the one in /etc, else an empty one; raises BadConfiguration."""
    name = named or environment.get("RECYCLERY_CONFIG") or None
    path = Path(name) if name else DEFAULT_FILE
    if name is None and not path.exists():
        return File()
    try:
        document = load_toml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadConfiguration(f"config file {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadConfiguration(f"config file {path} is not TOML: {error}") from None
    return check_file(str(path), document)


def check_file(name: str, document: Mapping[str, Any]) -> File:
    """Return the file with every value checked; raises BadConfiguration."""
    for key in (*TABLES, "pools"):
        value = document.get(key)
        if value is not None and (not isinstance(value, dict) or (key == "pools" and not value)):
            raise BadConfiguration(f"`{key}` in {name} must be a table, as [{key}] begins one")
    tables = {
        key: check_table(name, f"[{key}] ", table, document.get(key, {})) for key, table in TABLES.items()
    }
    top = {key: value for key, value in document.items() if key not in TABLES and key != "pools"}
    pools = document.get("pools")
    return File(
        name=name,
        tables={**tables, "": check_table(name, "", Settings, top)},
        pools=None if pools is None else tuple(check_pool_table(name, key, pools[key]) for key in pools),
    )


def check_table(file_name: str, prefix: str, table: type[Struct], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a table checked; raises BadConfiguration, for an unknown key too."""
    known = settings_of(table)
    for key in values:
        if key not in known:
            raise BadConfiguration(
                f"{prefix}{key} (in {file_name}) is not a setting: there are {', '.join(known)}"
            )
    source = f"in {file_name}"
    return {key: checked(known[key].parse, f"{prefix}{key}", value, source) for key, value in values.items()}


def check_pool_table(file_name: str, pool_name: str, values: Any) -> Pool:
    """Return a [pools.NAME] table as a pool, with defaults from the built-in pool of that name."""
    checked(parse_pool_name, "[pools] name", pool_name, f"in {file_name}")
    if not isinstance(values, dict):
        raise BadConfiguration(f"`pools.{pool_name}` in {file_name} must be a table")
    given = check_table(file_name, f"[pools.{pool_name}] ", Pool, values)
    base = next((pool for pool in BUILT_IN if pool.name == pool_name), None)
    if base is None and "queues" not in given:
        raise BadConfiguration(f"[pools.{pool_name}] in {file_name} needs `queues`")
    pool = with_values(replace(base or SINGLE, name=pool_name), given)
    check_task_limit(pool, f"in {file_name}")
    return pool


def choose_pools(line: CommandLine, given: Mapping[str, Given], file: File) -> tuple[Pool, ...]:
    """Return the pools to run here; options and variables of a pool apply where only one runs."""
    configured = BUILT_IN if file.pools is None else file.pools
    if line.single:
        pools: tuple[Pool, ...] = (SINGLE,)
    elif line.pools:
        pools = tuple(named_pool(name, configured) for name in dict.fromkeys(line.pools))
    elif "CELERY_QUEUES" in given or "CELERY_WORKER_NAME" in given:
        pools = (pool_from_environment(given, configured),)
    else:
        pools = configured
    if len(pools) == 1:
        return (with_values(pools[0], collect_values(Pool, {}, given)),)
    for setting in settings_of(Pool).values():
        if found := find_given(setting, given):
            name, text, source = found
            raise BadConfiguration(
                f"{name} is {text!r} ({source}), but {len(pools)} pools would run "
                f"({', '.join(pool.name for pool in pools)}): say which it is for with CELERY_WORKER_NAME, "
                "or set it in the config file"
            )
    return pools


def pools_everywhere(here: tuple[Pool, ...], file: File) -> tuple[Pool, ...]:
    """Return the pools of all containers: those of the file and those here, which override the file's.

    Without pools in the file the built-in ones count, unless a pool here is none of them.
    """
    are_built_in = {pool.name for pool in here} <= {pool.name for pool in BUILT_IN}
    configured = file.pools or (BUILT_IN if are_built_in else ())
    return tuple({pool.name: pool for pool in (*configured, *here)}.values())


def check_slots(pools: tuple[Pool, ...]) -> tuple[Pool, ...]:
    """Return the pools if none is named like another's spare slot; raises BadConfiguration."""
    names = {pool.name for pool in pools}
    for pool in pools:
        if (spare := pool.slots[1]) in names:
            raise BadConfiguration(
                f"[pools] name is {spare!r}, as the worker is called that replaces one of {pool.name!r}: "
                "rename one of the two pools"
            )
    return pools


def named_pool(name: str, pools: Iterable[Pool]) -> Pool:
    """Return the pool that --pool names; raises BadConfiguration."""
    known = {pool.name: pool for pool in pools}
    if name not in known:
        raise BadConfiguration(f"--pool is {name!r} ({ON_THE_LINE}): it must be one of {', '.join(known)}")
    return known[name]


def pool_from_environment(given: Mapping[str, Given], configured: tuple[Pool, ...]) -> Pool:
    """Return the pool with the name CELERY_WORKER_NAME, else with CELERY_QUEUES; raises BadConfiguration."""
    if "CELERY_WORKER_NAME" not in given:
        wanted = set(checked(parse_queues, *given["CELERY_QUEUES"]))
        return next((pool for pool in configured if set(pool.queues) == wanted), SINGLE)
    name = checked(parse_pool_name, *given["CELERY_WORKER_NAME"])
    known = {pool.name: pool for pool in configured}
    if name not in known and "CELERY_QUEUES" not in given:
        raise BadConfiguration(
            f"CELERY_WORKER_NAME is {name!r} ({IN_ENVIRONMENT}): it must be one of {', '.join(known)}, "
            "or CELERY_QUEUES must name the queues it serves"
        )
    return known.get(name, replace(SINGLE, name=name))
