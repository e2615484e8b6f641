"""conf/recyclery.toml is the reference: every setting, with its default."""

import tomllib
from pathlib import Path

from recyclery.config.fields import settings_of
from recyclery.config.settings import TABLES, Pool, Settings
from recyclery.config.sources import CommandLine, load_settings

REFERENCE = Path(__file__).parents[2] / "conf" / "recyclery.toml"


def test_the_reference_holds_the_defaults() -> None:
    environment = {"CELERY_APP": "sample_app"}
    written = load_settings(CommandLine(config=str(REFERENCE)), environment)
    assert written == load_settings(CommandLine(), environment)


def test_the_reference_names_every_setting() -> None:
    document = tomllib.loads(REFERENCE.read_text())
    assert {*document, "app"} == {*settings_of(Settings), *TABLES, "pools"}
    for name, table in TABLES.items():
        assert document[name].keys() == settings_of(table).keys()
    assert all(pool.keys() == settings_of(Pool).keys() for pool in document["pools"].values())
