"""The settings: keys, defaults, ranges, sources, and when a change takes effect. settings.toml has them all."""

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
    """Yield each setting's table ("" for the top), its key and what is promised of it."""
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
    """Return a value as TOML has it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + " }"
    return json.dumps(value)


def text(value: Any) -> str:
    """Return a value as the environment and the command line have it."""
    return ",".join(value) if isinstance(value, list) else str(value)


def load(
    folder: Path, table: str, lines: Mapping[str, Any], environment: Mapping[str, str] = APP, **options: str
) -> Any:
    """Return the settings by a file with these values in one table, an environment and options."""
    config = folder / "recyclery.toml"
    written = [f"{key} = {toml(value)}" for key, value in lines.items()]
    config.write_text("\n".join([f"[{table}]" if table else "", *written]))
    return product.load_configuration(config, environment, options)


def read(settings: Any, table: str, key: str) -> Any:
    """Return one value of the settings as their file has it."""
    return product.read_setting(settings, table.removeprefix("pools."), key)


def test_there_are_just_the_frozen_settings() -> None:
    assert {(table.removesuffix(".fast"), key) for table, key, _ in SETTINGS} == product.setting_keys()


@every_setting
def test_a_setting_has_its_frozen_default(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    if "default" in promised:
        assert read(load(tmp_path, table, {}), table, key) == promised["default"]


@every_setting
def test_a_setting_takes_its_frozen_range_and_refuses_what_is_beyond_it(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    environment: dict[str, str] = {} if key == "app" else APP
    for value in promised["takes"]:
        load(tmp_path, table, {key: value}, environment)
    for value in promised["refuses"]:
        with pytest.raises(product.BAD_CONFIGURATION, match=key):
            load(tmp_path, table, {key: value}, environment)


@every_setting
def test_a_settings_variable_stands_above_the_file_and_its_option_above_both(
    tmp_path: Path, table: str, key: str, promised: dict[str, Any]
) -> None:
    one, other = (promised["takes"] * 2)[:2]
    expected = read(load(tmp_path, table, {key: other}, {} if key == "app" else APP), table, key)
    # What variables of pools say goes to the one pool that runs.
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
def test_a_setting_takes_effect_when_it_is_promised_to(
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


def test_port_says_where_http_is_served_unless_something_else_does(tmp_path: Path) -> None:
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
def test_the_pools_that_run_are_the_frozen_ones(
    tmp_path: Path, environment: dict[str, str], options: dict[str, Any], pools: list[Any]
) -> None:
    settings = product.load_configuration(None, APP | environment, options)
    keys = ("queues", "concurrency", "max_tasks_per_child")
    assert [
        (name, *(read(settings, name, key) for key in keys)) for name in product.pool_names(settings)
    ] == pools
