"""The verdict on a storm."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from recyclery_demo.picture import make_table
from recyclery_demo.summary import Summary, verdict

FLAWLESS = Summary(
    manager="recyclery",
    mix="browsers",
    memory="cgroup v1",
    tasks=150,
    succeeded=150,
    failed=0,
    lost=0,
    queued=0,
    duplicates=0,
    fast_tasks=500,
    fast_succeeded=500,
    oom_kills=0,
    recycles={"growth": 12, "tasks": 3},
    orphans_reaped=45,
    leaked_browsers=0,
    defunct_left=0,
    processes_left=0,
    peak_bytes=900 << 20,
    peak_floor_bytes=700 << 20,
    limit_bytes=1 << 30,
    seconds=181.5,
    scraped_seconds=180.9,
    fast_p95_seconds=0.0123,
    exit=0,
    ending="finished",
)


def test_a_flawless_storm_exits_0() -> None:
    assert FLAWLESS.exit_status() == 0


@pytest.mark.parametrize(
    "flawed",
    [
        dataclasses.replace(FLAWLESS, succeeded=149),
        dataclasses.replace(FLAWLESS, fast_succeeded=499),
        dataclasses.replace(FLAWLESS, failed=1),
        dataclasses.replace(FLAWLESS, lost=1),
        dataclasses.replace(FLAWLESS, oom_kills=1),
        dataclasses.replace(FLAWLESS, defunct_left=1),
        dataclasses.replace(FLAWLESS, processes_left=1),
    ],
)
def test_each_flaw_alone_exits_1(flawed: Summary) -> None:
    assert flawed.exit_status() == 1


def test_a_task_done_twice_is_no_flaw_of_a_broker_that_delivers_at_least_once() -> None:
    assert dataclasses.replace(FLAWLESS, duplicates=2).exit_status() == 0


def test_the_json_has_every_figure_by_its_name() -> None:
    document = json.loads(FLAWLESS.to_json())
    assert document == dataclasses.asdict(FLAWLESS)
    assert document["recycles"] == {"growth": 12, "tasks": 3}


def test_the_json_is_one_line() -> None:
    assert "\n" not in FLAWLESS.to_json()


def test_the_verdict_names_every_flaw() -> None:
    text = verdict(dataclasses.replace(FLAWLESS, succeeded=49, lost=1, oom_kills=1176, ending="deadline"))
    assert text == "Not good (deadline): 101 of 150 tasks not done, 1 lost, 1176 OOM kills."


def test_browsers_left_running_are_not_passed_over() -> None:
    assert "3 browsers were left running" in verdict(dataclasses.replace(FLAWLESS, leaked_browsers=3))


def test_the_table_fits_a_terminal_of_80_columns() -> None:
    output = io.StringIO()
    Console(file=output, width=200).print(make_table(FLAWLESS))
    assert max(len(line.rstrip()) for line in output.getvalue().splitlines()) <= 80
