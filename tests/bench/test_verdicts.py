"""What the figures of two sides say: intervals, which way is the better one, and what is sure."""

import json
import math
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest

from benchmarks.contract import Bound, Interval, close, median_interval
from benchmarks.report import (
    BoundRow,
    Closing,
    Entry,
    Machine,
    Report,
    SampleRow,
    UnreadableReport,
    format_report,
    read_closing,
    read_report,
)
from benchmarks.verdicts import (
    better_way,
    bounded_way,
    compare_pairs,
    compare_reports,
    divide,
    format_differences,
    judge,
    list_figures,
)

MACHINE = Machine(cores=2, memory_bytes=8 << 30, kernel="6.18", python="3.11.9", celery="5.6.0")


def closing(**figures: Any) -> Closing:
    return Closing(figures={name.replace("_", " "): value for name, value in figures.items()})


def sampled(*values: float, name: str = "ratio to stock Celery") -> Closing:
    found = median_interval(values)
    return Closing(samples={name: SampleRow(list(values), **vars(found))})


def report(quick: bool = True, **closings: Closing) -> Report:
    entries = {
        name: Entry(
            **msgspec.structs.asdict(each), result="passed", reason="", exit_code=0, seconds=1.0, load=[0.1] * 3
        )
        for name, each in closings.items()
    }
    return Report("2026-01-01T00:00:00+00:00", "abc", False, quick, False, MACHINE, entries)


def pairs(before: list[float], after: list[float], name: str = "work_seconds") -> list[tuple[Closing, Closing]]:
    return [(closing(**{name: a}), closing(**{name: b})) for a, b in zip(before, after, strict=True)]


# Intervals of medians.


def test_five_values_hold_the_median_between_the_least_and_the_largest_15_times_of_16() -> None:
    assert median_interval([3.0, 1.0, 5.0, 2.0, 4.0]) == Interval(3.0, 1.0, 5.0, 0.9375)


def test_of_many_values_the_outer_ones_are_left_out() -> None:
    interval = median_interval([float(number) for number in range(20)])
    assert (interval.low, interval.high) == (5, 14)
    assert interval.coverage == pytest.approx(0.9586, abs=1e-4)


@pytest.mark.parametrize(("count", "coverage"), [(1, 0.0), (2, 0.5), (3, 0.75), (4, 0.875)])
def test_fewer_than_five_values_say_how_little_is_sure(count: int, coverage: float) -> None:
    interval = median_interval([float(number) for number in range(count)])
    assert (interval.low, interval.high, interval.coverage) == (0, count - 1, coverage)


def test_the_chance_is_that_of_all_ways_in_which_values_fall_on_either_side_of_the_median() -> None:
    sides = list(product((-1.0, 1.0), repeat=7))
    for coverage in (0.5, 0.9):
        found = [median_interval(values, coverage) for values in sides]
        held = sum(each.low <= 0 <= each.high for each in found) / len(sides)
        assert held == pytest.approx(found[0].coverage, abs=1e-4)


def test_ten_values_are_all_needed_where_more_is_to_be_sure() -> None:
    values = [float(number) for number in range(10)]
    assert (median_interval(values, 0.99).low, median_interval(values).low) == (0, 2 - 1)


# Bounds of what was taken several times.


def test_a_bound_is_broken_only_where_the_whole_interval_breaks_it() -> None:
    assert Bound(0.9, ">=", 0.97, [0.8, 0.85, 0.9, 0.95, 0.98]).holds
    assert not Bound(0.9, ">=", 0.97, [0.8, 0.85, 0.9, 0.95, 0.96]).holds
    assert Bound(200, "<=", 150, [140, 190, 200, 210, 220]).holds
    assert not Bound(0.9, ">=", 0.97).holds


def test_a_closing_line_has_the_samples_with_their_interval(capsys: pytest.CaptureFixture[str]) -> None:
    close("fake", {"seconds": 1}, {}, {}, {"ratio": [1.0, 2.0, 3.0]})
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["samples"] == {
        "ratio": {"values": [1.0, 2.0, 3.0], "median": 2.0, "low": 1.0, "high": 3.0, "coverage": 0.75}
    }


def test_without_samples_the_closing_line_is_as_ever(capsys: pytest.CaptureFixture[str]) -> None:
    close("fake", {"seconds": 1}, {}, {})
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])) == [
        "benchmark", "figures", "required", "goal",
    ]  # fmt: skip


# Which way is the better one.


@pytest.mark.parametrize(
    ("bound", "better"),
    [(">= 0.97", "higher"), ("<= 150", "lower"), ("== 0", "lower"), ("== 150", None)],
)
def test_a_bound_says_which_way_is_the_better_one(bound: str, better: str | None) -> None:
    assert bounded_way(bound) == better


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("tick_p50_ms", "lower"),
        ("p50 ms at concurrency 1", "lower"),
        ("24 h read, s", "lower"),
        ("recyclery, 10 sleep: pss_bytes: PID 1", "lower"),
        ("largest MiB", "lower"),
        ("cpu_percent: helper", "lower"),
        ("ratio at 10 tasks per child", "higher"),
        ("rates: recyclery", "higher"),
        ("rows written per second", "higher"),
        ("kept: pages per minute", "higher"),
        ("worlds: steady 8 MiB: ratio", "higher"),
        ("worlds: steady 8 MiB: passed", None),
        ("wide peaks (6 %): tasks", None),
        ("stranger's Chrome untouched", None),
        ("seed", None),
        ("rates: celery", None),
        ("celery, child: p50_seconds", None),
        ("kills: raw Selenium, child: p99 s", None),
    ],
)
def test_a_unit_says_which_way_is_the_better_one_but_not_of_a_peer(name: str, better: str | None) -> None:
    assert better_way(name) == better


def test_a_peer_has_no_verdict_even_where_it_has_a_bound() -> None:
    assert better_way("gone p99 s: raw Selenium, child", BoundRow(1, "<= 2", True)) is None
    assert better_way("gone p99 s: browser(), child", BoundRow(1, "<= 2", True)) == "lower"


# Reading a closing line.


def test_every_number_is_a_figure_and_a_list_of_numbers_is_its_median() -> None:
    figures = {"rates": {"ours": [3, 1, 2]}, "chrome": "156", "ok": True, "none": None, "storms": [{"a": 1}]}
    found = list_figures(Closing(figures=figures))
    assert {name: each.value for name, each in found.items()} == {"rates: ours": 2}


def test_a_figure_with_a_bound_has_its_direction_and_its_samples() -> None:
    bound = BoundRow(0.9, "<= 1", True)
    both = sampled(0.8, 0.9, 1.0, name="of it")
    found = list_figures(Closing(required={"of it": bound}, samples=both.samples))["of it"]
    assert (found.better, found.bounded, found.interval) == ("lower", True, Interval(0.9, 0.8, 1.0, 0.75))


def test_the_closing_line_is_the_last_line_of_json() -> None:
    printed = (
        '{"benchmark": "old", "figures": {"a": 1}}\nok\n{"benchmark": "new", "figures": {"a": 2}}\n{"b": 1}\n'
    )
    found = read_closing(printed)
    assert found is not None
    assert found.figures == {"a": 2}
    assert read_closing("all is well\n") is None


# What is sure.


@pytest.mark.parametrize(
    ("before", "after", "verdict", "word"),
    [
        ([1.0] * 5, [1.1, 1.2, 1.3, 1.1, 1.2], "worse", "slower"),
        ([1.0] * 5, [0.8, 0.7, 0.9, 0.8, 0.9], "better", "faster"),
        ([1.0] * 5, [1.1, 1.2, 1.3, 1.1, 0.99], "same", "same"),
        ([1.0] * 4, [2.0] * 4, "unsure", "too few values"),
        ([0.0] * 5, [0.0] * 5, "same", "same"),
        ([0.0] * 5, [1.0] * 5, "worse", "slower"),
        ([-1.0] * 5, [1.0] * 5, "-", "-"),
    ],
)
def test_only_pairs_that_all_agree_say_that_something_changed(
    before: list[float], after: list[float], verdict: str, word: str
) -> None:
    (difference,) = compare_pairs("fake", pairs(before, after))
    assert (difference.verdict, difference.word) == (verdict, word)


def test_the_ratio_is_the_median_of_the_pairs() -> None:
    (difference,) = compare_pairs("fake", pairs([1, 2, 4, 1, 1], [2, 2, 4, 3, 1]))
    assert difference.ratio == Interval(1.0, 1.0, 3.0, 0.9375)
    assert (difference.before, difference.after) == (1, 2)


def test_more_memory_is_larger_and_fewer_tasks_a_second_are_slower() -> None:
    words = [
        compare_pairs("fake", pairs([1.0] * 5, [value] * 5, name))[0].word
        for name, value in (("pss_bytes", 2.0), ("per_second", 0.5), ("ratio", 0.5))
    ]
    assert words == ["larger", "slower", "worse"]


def test_a_figure_of_one_side_alone_is_not_compared() -> None:
    assert compare_pairs("fake", [(closing(old_seconds=1), closing(new_seconds=1))]) == []


def test_a_ratio_to_nothing_is_without_end() -> None:
    assert (divide(1, 0), divide(0, 0), divide(-1, 1)) == (math.inf, 1.0, None)


def test_without_a_direction_there_is_no_verdict() -> None:
    assert judge(Interval(2, 2, 2, 1), None) == "-"


def test_files_differ_where_their_intervals_lie_apart() -> None:
    before = report(fake=sampled(1.0, 1.1, 1.2, 1.1, 1.0))
    apart, across = sampled(0.7, 0.8, 0.9, 0.8, 0.9), sampled(0.9, 0.95, 1.0, 1.05, 0.9)
    verdicts = [compare_reports(before, report(fake=after))[0].verdict for after in (apart, across)]
    assert verdicts == ["worse", "same"]


def test_a_figure_that_a_file_has_once_is_not_sure() -> None:
    (difference,) = compare_reports(report(fake=closing(work_seconds=1)), report(fake=closing(work_seconds=9)))
    assert (difference.verdict, difference.after) == ("unsure", 9)


def test_only_the_benchmarks_named_are_compared() -> None:
    both = report(one=closing(work_seconds=1), two=closing(work_seconds=1))
    assert {each.benchmark for each in compare_reports(both, both, ["two"])} == {"two"}


def test_the_table_counts_what_is_equal_and_shows_what_has_a_bound() -> None:
    bounded = Closing(figures={"seed": 1}, required={"lost": BoundRow(0, "== 0", True)})
    table = format_differences(compare_pairs("fake", [(bounded, bounded)] * 5))
    assert "lost" in table
    assert "and 1 figures more that are equal" in table


# The file.


def test_a_file_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    written = report(fake=sampled(1.0, 2.0, math.inf))
    path.write_text(format_report(written))
    assert read_report(path) == written


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "No such file"),
        ("", "no file of"),
        ('{"date": "2026', "no file of"),
        ("[1]", "Expected `object`"),
        ('{"benchmark": "throughput", "figures": {}}', "missing required field"),
    ],
)
def test_a_broken_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str | None, complaint: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UnreadableReport, match=complaint) as refused:
        read_report(path)
    assert str(path) in str(refused.value)


def test_a_file_says_which_entry_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    document = msgspec.to_builtins(report(fake=closing(work_seconds=1)))
    document["benchmarks"]["fake"]["load"] = "high"
    path.write_text(json.dumps(document))
    with pytest.raises(UnreadableReport, match=r"load"):
        read_report(path)
