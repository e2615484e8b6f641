"""The options of `recyclery demo`."""

import argparse
import subprocess
import sys

import pytest

from recyclery_demo.options import Options, add_arguments, read_options


def parse(*arguments: str) -> Options:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return read_options(parser.parse_args(arguments))


def test_without_options_it_is_the_storm_of_the_budget_table() -> None:
    options = parse()
    assert (options.tasks, options.mix.forget_share, options.fast_tasks) == (150, 0.30, 500)
    assert (options.mix_name, options.mix.leave_bytes) == ("browsers", 5 << 20)
    assert (options.limit_bytes, options.manager, options.deadline_seconds) == (1 << 30, "recyclery", 900)


def test_stock_celery_is_given_up_sooner() -> None:
    assert parse("--manager", "celery").deadline_seconds == 300


def test_a_stated_deadline_holds_for_either_manager() -> None:
    assert parse("--manager", "celery", "--deadline", "30").deadline_seconds == 30


def test_a_smaller_storm_has_fewer_light_tasks() -> None:
    assert parse("--tasks", "30").fast_tasks == 100


def test_a_stated_leak_stands_above_the_mix() -> None:
    mix = parse("--mix", "steady", "--leak", "0.5", "--leave", "1MiB").mix
    assert (mix.forget_share, mix.leave_bytes) == (0.5, 1 << 20)


def test_a_storm_without_any_leak_can_be_asked_for_by_its_amounts() -> None:
    mix = parse("--leak", "0", "--leave", "0").mix
    assert (mix.forget_share, mix.leave_bytes) == (0, 0)


def test_no_light_tasks_at_all_can_be_asked_for() -> None:
    assert parse("--fast-tasks", "0").fast_tasks == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--tasks", "0"),
        ("--tasks", "many"),
        ("--leak", "1.5"),
        ("--leak", "nan"),
        ("--fast-tasks", "-1"),
        ("--memory", "1 elephant"),
        ("--memory", "64m"),
        ("--deadline", "0"),
        ("--deadline", "inf"),
        ("--manager", "circus"),
        ("--mix", "none"),
        ("--log", "/no/such/folder/log"),
    ],
)
def test_a_value_that_makes_no_sense_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ending:
        parse(*arguments)
    assert ending.value.code == 2


def test_declaring_the_options_imports_nothing_heavy() -> None:
    heavy = {"celery", "rich", "redis", "psutil", "selenium"}
    code = f"import sys, recyclery_demo; print({heavy!r} & {{name.partition('.')[0] for name in sys.modules}})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"
