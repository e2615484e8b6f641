"""The pure parts of the browsers' benchmark: its variants, its figures and its bounds."""

import os
from pathlib import Path

import pytest

from benchmarks.browsers import bound_aftermath, bound_kills, bound_pages
from benchmarks.browsers_flags import (
    AGAIN,
    MYTHS,
    OURS,
    SELENIUM,
    Readings,
    Variant,
    change_arguments,
    compare,
    list_variants,
    make_document,
)
from benchmarks.browsers_kills import Aftermath, Kills, describe
from benchmarks.browsers_meters import MIB, count_kinds, percentile, spread
from benchmarks.browsers_pages import KEPT, NEW, TIGHT, Curve
from recyclery_worker.browser.session import FLAGS, LOCAL_FLAGS


def test_each_of_our_flags_is_left_out_once_and_each_myth_added_once() -> None:
    variants = list_variants(quick=False)
    assert [variant.name for variant in variants[:3]] == [OURS, AGAIN, SELENIUM]
    assert {*FLAGS, *LOCAL_FLAGS} <= {variant.without for variant in variants}
    assert [variant.added for variant in variants if variant.added] == list(MYTHS)


def test_a_flag_is_left_out_whatever_its_value_and_an_added_one_replaces_its_like() -> None:
    ours = ["--headless=new", "--window-size=1280,800", "--no-first-run"]
    assert change_arguments(ours, Variant(OURS)) == ours
    assert change_arguments(ours, Variant("x", without="--window-size")) == ["--headless=new", "--no-first-run"]
    assert change_arguments(ours, Variant("x", added="--window-size=1920,1080")) == [
        "--headless=new", "--no-first-run", "--window-size=1920,1080",
    ]  # fmt: skip


def test_ratios_are_of_the_same_round_and_rounds_without_a_start_are_left_out() -> None:
    ratio = compare([2.0, None, 9.0, 4.0], [1.0, 1.0, None, 4.0])
    assert ratio is not None
    assert (ratio.median, ratio.least, ratio.most) == (1.5, 1.0, 2.0)
    assert compare([None], [1.0]) is None


def test_what_never_started_has_no_figures_but_its_failures() -> None:
    row = Readings([1.0], [1.0], [1.0], [1.0])
    document = make_document({OURS: row, "x": Readings([None], [None], [None], [None])})
    assert document["x"] == {"failed starts": 1}
    assert document[OURS]["start s"] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0, 1)])
def test_a_percentile_is_a_value_that_was_measured(percent: float, value: float) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], percent) == value


def test_the_99th_percentile_of_a_few_is_the_largest() -> None:
    assert percentile([0.1, 7.0, 0.2], 99) == 7.0
    assert str(spread([3.0, 1.0, 2.0])) == "2.00 (1.00-3.00)"


def test_leftovers_of_one_kind_are_counted_together() -> None:
    names = ["org.chromium.Chromium.aB1c2D", "org.chromium.Chromium.Zz9yX8", "recyclery-profile-ab_3wqip"]
    assert count_kinds({Path("/tmp/x") / name for name in names}) == {
        "org.chromium.Chromium": 2, "recyclery-profile": 1,
    }  # fmt: skip


def test_a_leftover_is_put_down_to_the_session_that_was_there_when_it_was_last_changed(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "socket").touch()
    os.utime(left, (250.0, 250.0))
    begun = [(100.0, "first"), (200.0, "second"), (300.0, "third")]
    assert describe(left, begun) == "left ['socket'] of second"
    assert describe(left, begun[2:]) == "left ['socket'] of before the first session"
    assert describe(tmp_path / "gone", begun) == "gone, gone meanwhile"


def test_a_kept_browser_may_hold_its_limit_and_what_one_session_varies_by() -> None:
    new = Curve([6.0, 6.0], [200 * MIB, 210 * MIB], [230 * MIB, 240 * MIB])
    kept = Curve([3.0, 3.0], [200 * MIB, 200 * MIB], [210 * MIB, 552 * MIB])
    limits = {KEPT: 512 * MIB, TIGHT: 220 * MIB}
    bounds = bound_pages({NEW: new, KEPT: kept, TIGHT: new}, limits)
    assert {name: bound.holds for name, bound in bounds.items()} == {
        "pages a minute, kept to new": True, f"most MiB, {KEPT}": True, f"most MiB, {TIGHT}": True,
    }  # fmt: skip
    kept.begun_bytes.append(553 * MIB)
    kept.seconds.append(30.0)
    bounds = bound_pages({NEW: new, KEPT: kept, TIGHT: new}, limits)
    assert not bounds["pages a minute, kept to new"].holds
    assert not bounds[f"most MiB, {KEPT}"].holds


def test_a_session_that_never_went_a_file_left_or_a_stranger_touched_each_breaks_a_bound() -> None:
    kills = {"raw Selenium, child": Kills([0.5, 2.5], never=1)}
    assert not bound_kills(kills, 2.0)["gone p99 s: raw Selenium, child"].holds
    broken = bound_aftermath(kills, Aftermath({"tmp/x": 1}, control_alive=False))
    assert not any(bound.holds for bound in broken.values())
    whole = bound_aftermath({"x": Kills([0.5])}, Aftermath({}, control_alive=True))
    assert all(bound.holds for bound in whole.values())
