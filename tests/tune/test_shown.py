"""What is shown of an answer: the table, JSON, the page, progress, two runs side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.leaks.page import NoPlotly
from recyclery.report.tune.comparison import compare_runs, comparison_document, format_comparison
from recyclery.report.tune.document import encode_document
from recyclery.report.tune.page import build_page, write_page
from recyclery.report.tune.progress import format_progress
from recyclery.report.tune.table import format_answer
from recyclery.tune.answer import Answer, answer
from recyclery.tune.course import Goal, describe_skipped
from recyclery.tune.windows import Level, Window
from recyclery.tune.wishes import Wishes
from recyclery_worker.browser import browser
from tune.worlds import World, measure

WORLD = World(sleep_seconds=0.8, cpu_seconds=0.3, growth_mib=2, limit_mib=1500)


def run(
    world: World = WORLD, seed: object = 0, concurrencies: Sequence[int] = (1, 2, 4, 6, 12), repeats: int = 3
) -> list[Window]:
    """Run levels of two numbers of tasks per child."""
    return [
        measure(world, Level(places, tasks), repeat, 40, seed)
        for places in concurrencies
        for tasks in (10, 50)
        for repeat in range(repeats)
    ]


@pytest.fixture(scope="module")
def found() -> Answer:
    return answer(run(), Wishes(arrivals_per_second=12, slo_seconds=5))


def test_the_table_fits_80_columns(found: Answer) -> None:
    assert max(map(len, format_answer(found).splitlines())) <= 80


def test_the_table_marks_the_level_recommended_those_refused_and_those_not_run(found: Answer) -> None:
    rows = {tuple(line[2:11].split()): line for line in format_answer(found).splitlines()[1:14]}
    assert found.recommended is not None
    level = found.recommended.level
    assert rows[str(level.concurrency), str(level.max_tasks_per_child)].startswith("* ")
    assert rows["12", "50"].startswith("- ")
    assert rows["1", "10"].startswith("  ")
    beside = rows[str(level.concurrency + 1), str(level.max_tasks_per_child)]
    assert beside.startswith("~ ")
    assert beside.endswith(" predicted")


def test_the_table_ends_with_what_to_set_and_how_many_containers(found: Answer) -> None:
    text = format_answer(found)
    assert found.recommended is not None
    assert f"    CELERY_CONCURRENCY={found.recommended.level.concurrency}\n" in text
    assert "    [pools.slow]\n" in text
    assert "12.0 tasks a second need" in text
    assert "- 12 x 50: given up: the floor passed" in text


def test_a_level_that_was_not_tried_has_no_figures() -> None:
    skipped = describe_skipped(Goal(Level(16, 10), 1.0, 2.0), 0, None, "no room for it")
    windows = [*run(concurrencies=(1, 2)), skipped]
    line = next(line for line in format_answer(answer(windows, Wishes())).splitlines() if line[2:5] == " 16")
    assert line.split() == ["-", "16", "10", *["-"] * 6, "not", "tried"]
    assert "no room for it" in build_page(answer(windows, Wishes()), "")
    assert json.loads(encode_document(answer(windows, Wishes())))["levels"][-1]["binds"] is None


def test_an_answer_without_any_window_is_shown_too() -> None:
    empty = answer([], Wishes())
    assert format_answer(empty) == "Nothing was measured. Run at least one level."
    assert json.loads(encode_document(empty))["levels"] == []
    assert "Nothing was measured" in build_page(empty, "")


def test_json_has_what_was_measured_what_is_predicted_and_what_to_set(found: Answer) -> None:
    document = json.loads(encode_document(found))
    assert document["version"] == 1
    first = document["levels"][0]
    assert (first["concurrency"], first["max_tasks_per_child"], first["repeats"]) == (1, 10, 3)
    assert first["per_second"]["low"] < first["per_second"]["value"] < first["per_second"]["high"]
    assert document["levels"][-1]["obstacle"].startswith("given up")
    assert {"was_run", "concurrency", "peak_floor_bytes"} <= document["predictions"][0].keys()
    assert document["laws"]["throughput"]["left_out_error"] < 0.15
    assert document["recommended"]["environment"]["CELERY_CONCURRENCY"]
    assert document["fleet"]["containers"] >= 3


def test_a_bound_that_is_not_known_is_null_in_json() -> None:
    windows = [replace(window, ran_seconds=window.ran_seconds[:10]) for window in run(concurrencies=(1,))]
    (first, _) = json.loads(encode_document(answer(windows, Wishes())))["levels"]
    assert first["ran"]["p95"]["high"] is None


def test_a_law_that_was_refused_says_why_in_json() -> None:
    document = json.loads(encode_document(answer(run(concurrencies=(1, 2)), Wishes())))
    assert document["laws"]["throughput"]["refused"].startswith("2 levels of concurrency")
    assert document["predictions"] == []


def test_no_name_becomes_markup_on_the_page() -> None:
    named = answer(run(concurrencies=(1,)), Wishes(pool="</script><b>{{plotly}}"))
    page = build_page(named, "/* plotly */")
    assert "&lt;/script&gt;&lt;b&gt;{{plotly}}" in page
    assert "</script><b>" not in page
    assert page.count("/* plotly */") == 1


def test_without_plotly_the_page_is_refused_with_the_way_out(
    found: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(NoPlotly, match=r"pip install 'recyclery\[report\]'"):
        write_page(tmp_path / "page.html", found)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            (0, 30, None, Level(4, 10)),
            "[....................] 0/30 windows, time left not known yet, now 4 x 10",
        ),
        ((15, 30, 3900.0, Level(4, 10)), "[##########..........] 15/30 windows, 1 h 05 min left, now 4 x 10"),
        ((29, 30, 45.2, None), "[###################.] 29/30 windows, 45 s left"),
        ((30, 30, 0.0, None), "[####################] 30/30 windows"),
        ((3, 4, 600.0, None), "[###############.....] 3/4 windows, 10 min left"),
    ],
)
def test_progress_tells_what_is_done_and_the_time_left(
    arguments: tuple[int, int, float | None, Level | None], line: str
) -> None:
    assert format_progress(*arguments) == line


def test_of_two_runs_of_the_same_most_ratios_are_said_to_be_noise() -> None:
    pairs = compare_runs(run(seed="a"), run(seed="b"))
    speeds = [pair.per_second for pair in pairs if pair.per_second is not None]
    assert len(speeds) >= 7
    assert sum(speed.is_noise for speed in speeds) >= len(speeds) - 1


def test_a_run_twice_as_fast_is_told_with_its_interval() -> None:
    quick = replace(WORLD, sleep_seconds=0.4, cpu_seconds=0.15)
    pairs = compare_runs(run(), run(quick))
    (first, *_) = pairs
    assert first.per_second is not None
    assert first.p95_seconds is not None
    assert first.per_second.value == pytest.approx(2, rel=0.15)
    assert first.per_second.low < 2 < first.per_second.high
    assert not first.per_second.is_noise
    assert first.p95_seconds.high < 0.75


def test_only_levels_of_both_runs_are_compared() -> None:
    pairs = compare_runs(run(concurrencies=(1, 2)), run(concurrencies=(2, 4)))
    assert [pair.level for pair in pairs] == [Level(2, 10), Level(2, 50)]
    nothing = format_comparison(compare_runs(run(concurrencies=(1,)), run(concurrencies=(2,))), ("a", "b"))
    assert "no level in common" in nothing


def test_a_run_without_repeats_is_said_to_be_one_whose_intervals_lack_what_they_differ_by() -> None:
    alone = format_comparison(compare_runs(run(), run(repeats=1)), ("a", "b"))
    assert "B ran each level once" in " ".join(alone.split())
    assert "once:" not in format_comparison(compare_runs(run(), run()), ("a", "b"))


def test_a_comparison_fits_80_columns_and_marks_what_may_be_noise() -> None:
    pairs = compare_runs(run(seed="a"), run(seed="b"))
    lines = format_comparison(pairs, ("a.jsonl", "b.jsonl")).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(") =" in line for line in lines)
    assert comparison_document(pairs)[0]["per_second"]["is_noise"] in {True, False}


@pytest.mark.browser
def test_the_page_draws_all_its_plots_within_its_width_and_loads_nothing(found: Answer, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(page, found)
    with browser() as driver:
        for width in (1280, 390):
            driver.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == 390},
            )
            driver.get(page.as_uri())
            drawn, loaded, wide = driver.execute_script(
                "const plots = [...document.querySelectorAll('.plot')];"
                "return [plots.map((plot) => plot.querySelectorAll('.trace').length),"
                "performance.getEntriesByType('resource').map((entry) => entry.name),"
                "document.documentElement.scrollWidth]"
            )
            # Band, law and two numbers of tasks; these two; as the first; front and levels.
            assert (drawn, loaded) == ([5, 2, 5, 2], [])
            assert wide <= width
