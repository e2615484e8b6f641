"""The configuration file: found, read, and every value of it checked."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from recyclery.config import fields
from recyclery.config.keys import (
    ALERTS_KEYS,
    BROWSERS_KEYS,
    HISTORY_KEYS,
    MEMORY_KEYS,
    POOL_KEYS,
    TOP_KEYS,
    BadConfiguration,
    check_keys,
    checked,
    with_values,
)
from recyclery.config.settings import BUILT_IN, SINGLE, Pool

DEFAULT_FILE = Path("/etc/recyclery/recyclery.toml")

TABLES = ("memory", "browsers", "alerts", "history", "pools")


@dataclass(frozen=True)
class File:
    """A configuration file, checked: values by key, and its pools by name (None: it has none)."""

    name: str = ""
    top: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)
    browsers: dict[str, Any] = field(default_factory=dict)
    alerts: dict[str, Any] = field(default_factory=dict)
    history: dict[str, Any] = field(default_factory=dict)
    pools: tuple[Pool, ...] | None = None


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
    alerts = table(name, document, "alerts")
    history = table(name, document, "history")
    pools = table(name, document, "pools")
    top = {key: value for key, value in document.items() if key not in TABLES}
    return File(
        name=name,
        top=check_keys(name, "", TOP_KEYS, top),
        memory=check_keys(name, "[memory] ", MEMORY_KEYS, memory or {}),
        browsers=check_keys(name, "[browsers] ", BROWSERS_KEYS, browsers or {}),
        alerts=check_keys(name, "[alerts] ", ALERTS_KEYS, alerts or {}),
        history=check_keys(name, "[history] ", HISTORY_KEYS, history or {}),
        pools=None if pools is None else tuple(check_pool(name, key, pools[key]) for key in pools),
    )


def table(name: str, document: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Return the table of that key, None where there is none; raises BadConfiguration."""
    value = document.get(key)
    if value is not None and (not isinstance(value, dict) or (key == "pools" and not value)):
        raise BadConfiguration(f"`{key}` in {name} must be a table, as [{key}] begins one")
    return value


def check_pool(file_name: str, pool_name: str, values: Any) -> Pool:
    """Return one [pools.NAME] table as a pool, with the built-in one's values where it has none."""
    checked(fields.pool_name, "[pools] name", pool_name, f"in {file_name}")
    if not isinstance(values, dict):
        raise BadConfiguration(f"`pools.{pool_name}` in {file_name} must be a table")
    given = check_keys(file_name, f"[pools.{pool_name}] ", POOL_KEYS, values)
    base = next((pool for pool in BUILT_IN if pool.name == pool_name), None)
    if base is None and "queues" not in given:
        raise BadConfiguration(f"[pools.{pool_name}] in {file_name} needs `queues`")
    return with_values(replace(base or SINGLE, name=pool_name), given)
