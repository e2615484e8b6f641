"""Settings changed while the supervisor runs: one by `recyclery set`, all of them by reading the file again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from recyclery.config.fields import BadConfiguration, Setting, checked, declared, settings_of
from recyclery.config.settings import TABLES, Pool, Settings, check_levels, with_values

COLUMN = 22
Table = TypeVar("Table", bound=Struct)


def change_settings(settings: Settings, table: str, texts: Mapping[str, str]) -> Settings:
    """Return the settings with values of one pool or of another table changed; texts are as in the file.

    Raises BadConfiguration.
    """
    if table in TABLES:
        changed = replace(getattr(settings, table), **check_texts(table, TABLES[table], texts))
        followed = replace(settings, **{table: changed})
        check_levels(followed.memory, "set")
        return followed
    found = next((pool for pool in settings.pools if pool.name == table), None)
    if found is None:
        known = ", ".join([*(pool.name for pool in settings.pools), *TABLES])
        raise BadConfiguration(f"{table!r} is no pool: there are {known}")
    pool = with_values(found, check_texts(table, Pool, texts))
    return replace(settings, pools=tuple(pool if each is found else each for each in settings.pools))


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
        values[key] = checked(live[key].parse, f"{name} {key}", read_value(text), "by set")
    return values


def read_value(text: str) -> Any:
    """Return a TOML value; what is none is text."""
    # Imported late: the governor needs it for `recyclery set` alone.
    import tomllib  # noqa: PLC0415

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
            changes += [
                f"{pool.name} {each.name} is {new}, was {old}" for each, old, new in differences(pool, wanted)
            ]
            changes += [] if starts_alike(pool, wanted) else [f"{pool.name} gets a new worker for it"]
    waiting += [f"{name} is new" for name in by_name]
    tables = [(f"{name} ", getattr(running, name), getattr(fresh, name)) for name in TABLES]
    for prefix, before, wanted in (*tables, ("", running, fresh)):
        for each, old, new in differences(before, wanted):
            if each.live:
                changes.append(f"{prefix}{each.name} is {new}, was {old}")
            else:
                waiting.append(f"{prefix}{each.name} is {new}")
    followed = {name: with_live(getattr(running, name), getattr(fresh, name)) for name in TABLES}
    return replace(with_live(running, fresh), pools=tuple(pools), **followed), changes, waiting


def starts_alike(pool: Pool, wanted: Pool) -> bool:
    """Tell whether a worker started for the one pool does for the other: what differs can be changed live."""
    return all(each.live for each, _, _ in differences(pool, wanted))


def with_live(before: Table, wanted: Table) -> Table:
    """Return the one table with what can be changed live as it is in the other."""
    return replace(before, **{each.name: new for each, _, new in differences(before, wanted) if each.live})


def differences(before: Struct, wanted: Struct) -> list[tuple[Setting, Any, Any]]:
    """Return every setting of a table that differs, as it was and as it is wanted."""
    pairs = (
        (each, getattr(before, each.name), getattr(wanted, each.name))
        for each in declared(type(before)).values()
    )
    return [(each, old, new) for each, old, new in pairs if old != new]


def describe_settings() -> str:
    """Return a line for each setting that can be changed, of pools and of each table."""
    lines = []
    for name, table in {"POOL": Pool, **TABLES}.items():
        live = [each for each in settings_of(table).values() if each.live]
        lines += [f"{name}:", *(f"  {each.name:{COLUMN}} {each.describe()}" for each in live)]
    return "\n".join(lines)
