"""conf/recyclery.toml is the reference: every setting, with its default."""

import tomllib
from pathlib import Path

from recyclery.config.keys import ALERTS_KEYS, BROWSERS_KEYS, HISTORY_KEYS, MEMORY_KEYS, POOL_KEYS, TOP_KEYS
from recyclery.config.sources import CommandLine, load

REFERENCE = Path(__file__).parents[2] / "conf" / "recyclery.toml"


def test_the_reference_holds_the_defaults() -> None:
    environment = {"CELERY_APP": "sample_app"}
    assert load(CommandLine(config=str(REFERENCE)), environment) == load(CommandLine(), environment)


def test_the_reference_names_every_setting() -> None:
    document = tomllib.loads(REFERENCE.read_text())
    assert {*document, "app"} == {*TOP_KEYS, "memory", "browsers", "alerts", "history", "pools"}
    assert document["memory"].keys() == MEMORY_KEYS.keys()
    assert document["browsers"].keys() == BROWSERS_KEYS.keys()
    assert document["alerts"].keys() == ALERTS_KEYS.keys()
    assert document["history"].keys() == HISTORY_KEYS.keys()
    assert all(pool.keys() == POOL_KEYS.keys() for pool in document["pools"].values())
