"""What is declared of a setting holds wherever it is used: the help, the checks, what is stored."""

import contextlib
import io
from pathlib import Path

import msgspec
import pytest
from msgspec import NODEFAULT

from recyclery.cli.parser import main
from recyclery.config.fields import declared, settings_of
from recyclery.config.settings import BUILT_IN, TABLES, Pool, Settings, read_settings, write_settings
from recyclery.config.sources import with_options

ALL: dict[str, type[msgspec.Struct]] = {"": Settings, "POOL": Pool, **TABLES}


def help_of(command: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit):
        main([command, "--help"])
    return said.getvalue()


def test_set_names_each_setting_that_can_be_changed_with_its_default_within_80_columns() -> None:
    lines = help_of("set").splitlines()
    assert max(map(len, lines)) <= 80
    for name, table in TABLES.items():
        section = lines[lines.index(f"{name}:") + 1 :]
        live = [each for each in settings_of(table).values() if each.live]
        assert [line.split() for line in section[: len(live)]] == [
            [each.name, *each.describe().split()] for each in live
        ]
    assert "  max_task_deaths        deaths after which a task is parked; 0: never (3)" in lines
    assert not any(line.split()[:1] == ["queues"] for line in lines)


def test_run_has_the_options_of_the_settings_with_their_defaults() -> None:
    text = " ".join(help_of("run").split())
    for option, setting in with_options().items():
        assert option in text
        assert setting.describe() in text
    assert "(25)" in text


def test_the_defaults_are_in_their_own_range() -> None:
    for table in ALL.values():
        for name, setting in settings_of(table).items():
            if setting.default not in (NODEFAULT, None, ()):
                assert setting.parse(setting.default) == setting.default, name


def test_every_field_is_a_setting_but_those_that_name_or_hold_others() -> None:
    others = {field.name for table in ALL.values() for field in msgspec.structs.fields(table)}
    others -= {name for table in ALL.values() for name in declared(table)}
    assert others == {"name", "pools", "runtime_dir", "state_dir", *TABLES}


def test_a_stored_value_out_of_its_range_is_refused(tmp_path: Path) -> None:
    write_settings(Settings(app="app", pools=BUILT_IN, runtime_dir=tmp_path, drain_seconds=0.5))
    with pytest.raises(ValueError, match="drain_seconds"):
        read_settings(tmp_path)
