"""The leak storm's benchmark: what it runs, what it asks of Recyclery, how its table looks."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import leak_storm
from benchmarks.leak_storm import list_cases, make_options, parse_arguments, run_all
from benchmarks.storm_peers import (
    PeerMissing,
    circus_configuration,
    find_tini,
    make_manager,
    supervisord_configuration,
)
from benchmarks.storm_table import Case, make_row, print_table, ratio, ratio_bounds, required_bounds
from recyclery_demo.options import Options
from recyclery_demo.plan import MIXES
from recyclery_demo.summary import Summary

GIB = 1 << 30
RUN = Summary(
    manager="recyclery",
    mix="clean",
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
    recycles={"max_tasks": 15},
    orphans_reaped=0,
    leaked_browsers=0,
    defunct_left=0,
    processes_left=0,
    peak_bytes=1000 << 20,
    peak_floor_bytes=400 << 20,
    limit_bytes=GIB,
    seconds=100.5,
    scraped_seconds=100.0,
    fast_p95_seconds=0.01,
    exit=0,
    ending="finished",
)


def case(mix: str, manager: str = "recyclery", limit_bytes: int = GIB) -> Case:
    return Case(manager, mix, limit_bytes)


def run(seconds: float = 100.0, **changes: object) -> Summary:
    return dataclasses.replace(RUN, scraped_seconds=seconds, **changes)  # type: ignore[arg-type]


def cases(*arguments: str) -> list[tuple[str, str]]:
    return [(each.manager, each.mix) for each in list_cases(parse_arguments(list(arguments)))]


def test_without_options_it_is_recyclery_in_every_mix() -> None:
    assert cases() == [("recyclery", mix) for mix in MIXES]


def test_a_peer_has_the_browsers_mix_alone() -> None:
    assert cases("--manager", "tini") == [("tini", "browsers")]


def test_all_managers_are_recyclery_and_its_five_peers() -> None:
    assert len({manager for manager, _ in cases("--manager", "all")}) == 6


def test_recyclery_always_runs_the_storm_it_is_measured_against() -> None:
    assert cases("--mix", "steady") == [("recyclery", "steady"), ("recyclery", "clean")]


def test_every_memory_has_every_case() -> None:
    args = parse_arguments(["--mix", "clean", "--memory", "1GiB", "--memory", "768MiB"])
    assert [each.limit_bytes >> 20 for each in list_cases(args)] == [1024, 768]


def test_quick_is_two_small_storms() -> None:
    assert cases("--quick") == [("recyclery", "browsers"), ("recyclery", "clean")]
    assert parse_arguments(["--quick"]).tasks == 12


def test_throughput_is_told_against_the_same_managers_clean_storm() -> None:
    runs = {case("steady"): [run(125)], case("clean"): [run(100)], case("clean", "tini"): [run(50)]}
    assert ratio(runs, case("steady")) == 0.8


def test_without_a_clean_storm_there_is_no_ratio() -> None:
    assert ratio({case("browsers", "tini"): [run()]}, case("browsers", "tini")) is None


@pytest.mark.parametrize(
    ("flaw", "name"),
    [
        ({"succeeded": 149}, "steady: done"),
        ({"oom_kills": 1}, "steady: OOM kills"),
        ({"lost": 1}, "steady: lost"),
        ({"seconds": 120}, "steady: throughput against clean"),
    ],
)
def test_each_flaw_breaks_its_bound_and_no_other(flaw: dict[str, float], name: str) -> None:
    runs = {case("steady"): [run(), run(**flaw)], case("clean"): [run()]}
    if name.endswith("clean"):
        runs[case("steady")].pop(0)
    assert [bound for bound, value in required_bounds(runs).items() if not value.holds] == [name]


def test_the_goal_is_95_percent_of_the_clean_throughput() -> None:
    runs = {case("steady"): [run(107)], case("clean"): [run(100)]}
    assert required_bounds(runs)["steady: throughput against clean"].holds
    assert not ratio_bounds(runs, 0.95)["steady: throughput against clean"].holds


@pytest.mark.parametrize("reason", ["budget", "replace", "preempt"])
def test_a_recycle_for_memory_without_a_leak_is_needless(reason: str) -> None:
    runs = {case("warmup"): [run(recycles={reason: 1, "max_tasks": 15})], case("clean"): [run()]}
    broken = [name for name, bound in required_bounds(runs).items() if not bound.holds]
    assert broken == ["warmup: needless recycles"]


def test_nothing_is_asked_of_a_peer() -> None:
    assert required_bounds({case("browsers", "celery"): [run(succeeded=3, lost=9, oom_kills=99)]}) == {}


def test_bounds_of_several_memories_are_told_apart() -> None:
    runs = {case("clean"): [run()], case("clean", limit_bytes=768 << 20): [run()]}
    assert {"clean in 1 GiB: done", "clean in 768 MiB: done"} <= required_bounds(runs).keys()


def test_the_table_fits_100_columns(capsys: pytest.CaptureFixture[str]) -> None:
    bad = run(300, succeeded=44, failed=100, lost=100, queued=106, oom_kills=3441)
    print_table({case("browsers", "supervisord-memmon", 1800 << 20): [bad, bad], case("clean"): [run()]})
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= 100


def test_a_row_has_the_worst_of_its_runs() -> None:
    row = make_row(case("browsers", "celery"), [run(), run(succeeded=44, oom_kills=7)], None)
    assert row.split()[:5] == ["celery", "browsers", "1", "GiB", "44/150"]
    assert " 7 " in row


def test_memory_per_child_is_limited_for_the_slow_worker_alone(tmp_path: Path) -> None:
    _, _, script = make_manager("celery-max-memory", tmp_path).command
    fast, slow, _ = script.split(" & ")
    assert "--max-memory-per-child" not in fast
    assert slow.endswith("--max-memory-per-child 200000")


@pytest.mark.parametrize("configure", [circus_configuration, supervisord_configuration])
def test_a_peers_workers_have_the_guides_settings(configure: Callable[[Path], str], tmp_path: Path) -> None:
    text = configure(tmp_path).replace("%%", "%")
    assert "-n fast@%h -Q high,default -c 3 --max-tasks-per-child 100" in text
    assert "-n slow@%h -Q low -c 1 --max-tasks-per-child 10" in text


def test_without_tini_and_without_root_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PeerMissing, match="apt-get install tini"):
        find_tini()


def test_a_peer_that_cannot_be_had_is_left_out_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_name: str, _folder: Path) -> None:
        raise PeerMissing("there is none")

    monkeypatch.setattr(leak_storm, "make_manager", refuse)
    runs: dict[Case, list[Summary]] = {}
    left_out: dict[str, str] = {}
    run_all(parse_arguments(["--manager", "tini"]), tmp_path, runs, left_out)
    assert (runs, left_out) == ({}, {"tini": "there is none"})


def test_runs_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def note(_manager: object, options: Options) -> Summary:
        seen.append(options.mix_name)
        return run()

    monkeypatch.setattr(leak_storm, "run_storm", note)
    run_all(parse_arguments(["--runs", "2", "--mix", "steady"]), tmp_path, {}, {})
    assert seen == ["steady", "clean", "steady", "clean"]


def test_a_peer_is_given_up_sooner_than_recyclery() -> None:
    args = parse_arguments([])
    deadlines = [make_options(args, case("clean", name), 1).deadline_seconds for name in ("recyclery", "tini")]
    assert deadlines == [900, 300]


def test_each_storm_has_a_log_of_its_own_if_asked_for(tmp_path: Path) -> None:
    args = parse_arguments(["--logs", str(tmp_path)])
    assert make_options(args, case("steady"), 2).log == tmp_path / "recyclery-steady-1024MiB-2.log"
