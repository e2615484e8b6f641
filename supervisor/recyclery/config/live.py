"""Changes of the settings while the supervisor runs, by `recyclery set` or by reading the file again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from recyclery.config.fields import BadConfiguration, Setting, checked, declared, load_toml, settings_of
from recyclery.config.settings import TABLES, Pool, Settings, check_levels, with_values

KEY_WIDTH = 22
Table = TypeVar("Table", bound=Struct)


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
    return replace(settings, pools=tuple(pools.values()))


def check_texts(name: str, table: type[Struct], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of texts such as `5`, `true` or `{ min = 1, max = 4 }`; raises BadConfiguration."""
    known = settings_of(table)
    live = {key: setting for key, setting in known.items() if setting.live}
    values = {}
    for key, text in texts.items():
        if key not in live:
            later = "is taken from the file, by a HUP" if table is Pool else "takes effect at the next start"
            problem = later if key in known else "is not a setting"
            raise BadConfiguration(f"{name} {key} {problem}: while it runs there are {', '.join(live)}")
        values[key] = checked(live[key].parse, f"{name} {key}", parse_toml_value(text), "by set")
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
            setting = f"{name} {each.name}".strip()
            if each.live:
                changes.append(f"{setting} is {new}, was {old}")
            else:
                waiting.append(f"{setting} is {new}")
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
        live = [each for each in settings_of(table).values() if each.live]
        lines += [f"{name}:", *(f"  {each.name:{KEY_WIDTH}} {each.describe()}" for each in live)]
    return "\n".join(lines)
