"""What is shown of a recommendation: the table, JSON, the page, progress, two runs side by side."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from recyclery.tune.output import (
    build_document,
    compare_runs,
    comparison_document,
    format_ratios,
    format_recommendation,
)
from recyclery.tune.page import build_tune_page
from recyclery.tune.progress import format_progress
from recyclery.tune.recommendation import Recommendation, recommend
from recyclery.tune.spec import Level, Objective
from recyclery.tune.window import Window, skip_window
from recyclery_worker.browser import browser
from support.layout import FAINT_TEXTS, OVERLAPS, SIDEWAYS, complaints, dress, watched_options
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


def decode(found: Recommendation) -> dict[str, Any]:
    """Return what `--json` prints."""
    document: dict[str, Any] = json.loads(msgspec.json.encode(build_document(found)))
    return document


@pytest.fixture(scope="module")
def found() -> Recommendation:
    return recommend(run(), Objective(arrivals_per_second=12, slo_seconds=5))


def test_the_table_fits_80_columns(found: Recommendation) -> None:
    assert max(map(len, format_recommendation(found).splitlines())) <= 80


def test_the_table_marks_the_level_recommended_and_those_refused(found: Recommendation) -> None:
    rows = {tuple(line[2:11].split()): line for line in format_recommendation(found).splitlines()[1:11]}
    assert found.settings is not None
    level = found.settings.level
    assert rows[str(level.concurrency), str(level.max_tasks_per_child)].startswith("* ")
    assert rows["12", "50"].startswith("- ")
    assert rows["1", "10"].startswith("  ")


def test_the_table_ends_with_what_to_set_and_how_many_containers(found: Recommendation) -> None:
    text = format_recommendation(found)
    assert found.settings is not None
    assert f"    CELERY_CONCURRENCY={found.settings.level.concurrency}\n" in text
    assert "    [pools.slow]\n" in text
    assert "12.0 tasks a second need" in text
    assert "- 12 x 50: given up: the floor passed" in text


def test_a_level_that_was_not_tried_has_no_figures() -> None:
    tried = run(concurrencies=(1, 2))
    windows = [*tried, skip_window(Level(16, 10), 0, tried[0], "no room for it")]
    line = next(
        line
        for line in format_recommendation(recommend(windows, Objective())).splitlines()
        if line[2:5] == " 16"
    )
    assert line.split() == ["-", "16", "10", *["-"] * 6, "not", "tried"]
    assert "no room for it" in build_tune_page(recommend(windows, Objective()))
    assert decode(recommend(windows, Objective()))["levels"][-1]["bottleneck"] is None


def test_a_recommendation_without_any_window_is_shown_too() -> None:
    empty = recommend([], Objective())
    assert format_recommendation(empty) == "Nothing was measured. Run at least one level."
    assert decode(empty)["levels"] == []
    assert "Nothing was measured" in build_tune_page(empty)


def test_json_has_what_was_measured_and_what_to_set(found: Recommendation) -> None:
    document = decode(found)
    assert document["version"] == 2
    first = document["levels"][0]
    assert (first["concurrency"], first["max_tasks_per_child"], first["repeats"]) == (1, 10, 3)
    assert first["per_second"]["low"] < first["per_second"]["value"] < first["per_second"]["high"]
    assert document["levels"][-1]["rejection"].startswith("given up")
    assert document["recommended"]["environment"]["CELERY_CONCURRENCY"]
    assert document["fleet"]["containers"] >= 3


def test_a_bound_that_is_not_known_is_null_in_json() -> None:
    windows = [replace(window, ran_seconds=window.ran_seconds[:10]) for window in run(concurrencies=(1,))]
    (first, _) = decode(recommend(windows, Objective()))["levels"]
    assert first["ran"]["p95"]["high"] is None


def test_no_name_becomes_markup_on_the_page() -> None:
    named = recommend(run(concurrencies=(1,)), Objective(pool="</script><b>{{scripts}}"))
    page = build_tune_page(named)
    assert "&lt;/script&gt;&lt;b&gt;{{scripts}}" in page
    assert "</script><b>" not in page
    assert page.count("class Chart") == 1


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((0, 30, 80.0, "4 x 10"), "[....................] 0/30 windows, 80 s left, now 4 x 10"),
        ((15, 30, 3900.0, "4 x 10"), "[##########..........] 15/30 windows, 1 h 05 min left, now 4 x 10"),
        ((29, 30, 45.2, "1 x 10"), "[###################.] 29/30 windows, 45 s left, now 1 x 10"),
        ((3, 4, 600.0, "1 x 10"), "[###############.....] 3/4 windows, 10 min left, now 1 x 10"),
    ],
)
def test_progress_shows_what_is_done_and_the_time_left(
    arguments: tuple[int, int, float, str], line: str
) -> None:
    assert format_progress(*arguments) == line


def test_of_two_runs_of_the_same_most_ratios_are_said_to_be_noise() -> None:
    pairs = compare_runs(run(seed="a"), run(seed="b"))
    speeds = [speed for pair in pairs if (speed := pair.ratios["per_second"]) is not None]
    assert len(speeds) >= 7
    assert sum(speed.is_noise for speed in speeds) >= len(speeds) - 1


def test_a_run_twice_as_fast_is_told_with_its_interval() -> None:
    quick = replace(WORLD, sleep_seconds=0.4, cpu_seconds=0.15)
    pairs = compare_runs(run(), run(quick))
    (first, *_) = pairs
    speed, p95 = first.ratios["per_second"], first.ratios["p95_seconds"]
    assert speed is not None
    assert p95 is not None
    assert speed.value == pytest.approx(2, rel=0.15)
    assert speed.low < 2 < speed.high
    assert not speed.is_noise
    assert p95.high < 0.75


def test_only_levels_of_both_runs_are_compared() -> None:
    pairs = compare_runs(run(concurrencies=(1, 2)), run(concurrencies=(2, 4)))
    assert [pair.level for pair in pairs] == [Level(2, 10), Level(2, 50)]
    nothing = format_ratios(compare_runs(run(concurrencies=(1,)), run(concurrencies=(2,))), ("a", "b"))
    assert "no level in common" in nothing


def test_a_run_without_repeats_is_said_to_be_one_whose_intervals_lack_what_they_differ_by() -> None:
    alone = format_ratios(compare_runs(run(), run(repeats=1)), ("a", "b"))
    assert "B ran each level once" in " ".join(alone.split())
    assert "once:" not in format_ratios(compare_runs(run(), run()), ("a", "b"))


def test_a_comparison_fits_80_columns_and_marks_what_may_be_noise() -> None:
    pairs = compare_runs(run(seed="a"), run(seed="b"))
    lines = format_ratios(pairs, ("a.jsonl", "b.jsonl")).splitlines()
    assert max(map(len, lines)) <= 80
    assert any(") =" in line for line in lines)
    assert comparison_document(pairs)[0]["per_second"]["is_noise"] in {True, False}


@pytest.mark.browser
def test_the_page_draws_all_its_plots_within_its_width_and_loads_nothing(
    found: Recommendation, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    page.write_text(build_tune_page(found), encoding="utf-8")
    with browser(options=watched_options()) as driver:
        for width, scheme in ((1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")):
            dress(driver, width, scheme)
            driver.get(page.as_uri())
            drawn, loaded, wide = driver.execute_script(
                "const plots = [...document.querySelectorAll('.chart')];"
                "return [plots.map((plot) => ['path.course', '.dot', '.interval'].map("
                "(part) => plot.querySelectorAll(part).length)),"
                "performance.getEntriesByType('resource').map((entry) => entry.name),"
                "document.documentElement.scrollWidth]"
            )
            # Two numbers of tasks, each at four levels, and one that was given up; the levels and their front.
            assert (drawn, loaded) == ([[2, 8, 8], [2, 8, 8], [2, 10, 10], [2, 8, 0]], [])
            assert wide <= width
            assert driver.execute_script(SIDEWAYS) == []
            assert driver.execute_script(OVERLAPS) == []
            assert driver.execute_script(FAINT_TEXTS) == []
            assert complaints(driver) == []
        told = {}
        for name in ("speed", "times", "memory", "front"):
            chart = driver.find_element(By.CSS_SELECTOR, f"#{name} svg")
            driver.execute_script("arguments[0].focus()", chart)
            chart.send_keys(Keys.HOME)
            told[name] = chart.get_attribute("aria-valuetext") or ""
        assert complaints(driver) == []
    first = found.levels[0]
    assert first.per_second is not None
    speed = f"{float(f'{first.per_second.value:.3g}'):g}"
    peak = f"{first.highest_floor_bytes / (1 << 20):.0f} MiB"
    assert told["speed"].startswith(f"concurrency 1; 10 tasks per child: {speed} (")
    assert told["times"].endswith(") s")
    assert told["memory"].startswith(f"concurrency 1; 10 tasks per child: highest {peak}; a window's peak ")
    assert told["front"] == f"{peak}; 1 × 10: {speed} tasks per second"
