"""The settings: keys, defaults, ranges, sources, and when a change takes effect. The table is settings.toml."""

import json
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from contracts import product

FROZEN = tomllib.loads((Path(__file__).parent / "settings.toml").read_text(encoding="utf-8"))
TABLES = dict.fromkeys(("memory", "browsers", "alerts", "history"))
APP = {"CELERY_APP": "app"}


def list_settings() -> Iterator[tuple[str, str, Any]]:
    """Yield the table ("" at the top level), the key and the contract of each setting."""
    yield from (("", key, value) for key, value in FROZEN.items() if key not in (*TABLES, "pools"))
    for table in TABLES:
        yield from ((table, key, value) for key, value in FROZEN[table].items())
    for pool, settings in FROZEN["pools"].items():
        yield from ((f"pools.{pool}", key, value) for key, value in settings.items())


SETTINGS = list(list_settings())
every_setting = pytest.mark.parametrize(
    ("table", "key", "promised"), SETTINGS, ids=[f"{table}.{key}".lstrip(".") for table, key, _ in SETTINGS]
)


def toml(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def text(value: Any) -> str:
    """Return a value as given in the environment or on the command line."""
    return ",".join(value) if isinstance(value, list) else str(value)


def load(
    folder: Path, table: str, lines: Mapping[str, Any], environment: Mapping[str, str] = APP, **options: str
) -> Any:
    """Load the settings from a file with these values in one table, an environment and options."""
    config = folder / "recyclery.toml"
    written = [f"{key} = {toml(value)}" for key, value in lines.items()]
    config.write_text("\n".join([f"[{table}]" if table else "", *written]))
    return product.load_configuration(config, environment, options)


def read(settings: Any, table: str, key: str) -> Any:
    """Return a value in the form of the file."""
    return product.read_setting(settings, table.removeprefix("pools."), key)


def test_the_configuration_has_exactly_the_frozen_settings() -> None:
    assert {(table.removesuffix(".fast"), key) for table, key, _ in SETTINGS} == product.setting_keys()


@every_setting
def test_a_setting_has_its_frozen_default(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    if "default" in promised:
        assert read(load(tmp_path, table, {}), table, key) == promised["default"]


@every_setting
def test_a_setting_accepts_its_frozen_range_and_refuses_other_values(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    environment: dict[str, str] = {} if key == "app" else APP
    for value in promised["takes"]:
        load(tmp_path, table, {key: value}, environment)
    for value in promised["refuses"]:
        with pytest.raises(product.BAD_CONFIGURATION, match=key):
            load(tmp_path, table, {key: value}, environment)


@every_setting
def test_the_variable_of_a_setting_overrides_the_file_and_its_option_overrides_both(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    one, other = (promised["takes"] * 2)[:2]
    expected = read(load(tmp_path, table, {key: other}, {} if key == "app" else APP), table, key)
    # The variables of pools apply to the only pool that runs.
    environment = {**APP, "CELERY_WORKER_NAME": "fast"} if table.startswith("pools.") else APP
    if variable := promised.get("variable"):
        settings = load(tmp_path, table, {key: one}, {**environment, variable: text(other)})
        assert read(settings, table, key) == expected
        if option := promised.get("option"):
            name = option.removeprefix("--").replace("-", "_")
            settings = load(
                tmp_path, table, {key: one}, {**environment, variable: text(one)}, **{name: text(other)}
            )
            assert read(settings, table, key) == expected


@every_setting
def test_a_setting_takes_effect_at_the_frozen_time(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    value, live = promised["takes"][0], promised["live"]
    running = load(tmp_path, table, {})
    wanted = load(tmp_path, table, {key: value}, {} if key == "app" else APP)
    after, waiting = product.reread(running, wanted)
    assert bool(waiting) == (live == "start")
    assert read(after, table, key) == read(running if live == "start" else wanted, table, key)
    named = table.removeprefix("pools.")
    if live == "set":
        assert read(product.change_setting(running, named, key, toml(value)), table, key) == read(
            wanted, table, key
        )
    else:
        with pytest.raises(product.BAD_CONFIGURATION):
            product.change_setting(running, named or key, key, toml(value))


def test_port_sets_the_http_address_unless_recyclery_http_does(tmp_path: Path) -> None:
    by_port = load(tmp_path, "", {"http": 1}, {**APP, "PORT": "9100"})
    both = load(tmp_path, "", {"http": 1}, {**APP, "PORT": "9100", "RECYCLERY_HTTP": "9200"})
    assert [read(settings, "", "http") for settings in (by_port, both)] == [":9100", ":9200"]


@pytest.mark.parametrize(
    ("environment", "options", "pools"),
    [
        ({}, {}, [("fast", ["high", "default"], 3, 100), ("slow", ["low"], 1, 10)]),
        ({}, {"single": True}, [("worker", ["high", "default", "low"], 2, 10)]),
        ({}, {"pools": ("slow",)}, [("slow", ["low"], 1, 10)]),
        ({"CELERY_WORKER_NAME": "slow"}, {}, [("slow", ["low"], 1, 10)]),
        ({"CELERY_QUEUES": "high,default"}, {}, [("fast", ["high", "default"], 3, 100)]),
        ({"CELERY_WORKER_NAME": "mine", "CELERY_QUEUES": "a"}, {}, [("mine", ["a"], 2, 10)]),
    ],
)
def test_the_built_in_pools_are_the_frozen_ones(
    tmp_path: Path, environment: dict[str, str], options: dict[str, Any], pools: list[Any]
) -> None:
    settings = product.load_configuration(None, APP | environment, options)
    keys = ("queues", "concurrency", "max_tasks_per_child")
    assert [
        (name, *(read(settings, name, key) for key in keys)) for name in product.pool_names(settings)
    ] == pools
