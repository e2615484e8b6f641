"""Which levels are tried in what order, and which are not."""

from itertools import pairwise

import pytest

from recyclery.tune.arrivals import draw_arrivals, read_load, stretch_trace
from recyclery.tune.course import Goal, describe_skipped
from recyclery.tune.marks import TaskRun
from recyclery.tune.open_loop import count_backlog
from recyclery.tune.plan import Step, expect_seconds, is_worth_more, order_repeats, why_skip
from recyclery.tune.windows import Level
from support.tune_windows import window


def test_each_round_of_repeats_has_every_level_once_in_an_order_of_its_own() -> None:
    levels = [Level(each, 10) for each in (1, 2, 4, 8, 16)]
    steps = list(order_repeats(levels, repeats=4, seed=7))
    rounds = [[step.level for step in steps if step.repeat == repeat] for repeat in (1, 2, 3)]
    assert all(sorted(each) == levels for each in rounds)
    assert len({tuple(each) for each in rounds}) == 3


def test_the_same_seed_gives_the_same_order() -> None:
    levels = [Level(each, 10) for each in (1, 2, 4, 8)]
    assert list(order_repeats(levels, 3, 1)) == list(order_repeats(levels, 3, 1))
    assert list(order_repeats(levels, 3, 1)) != list(order_repeats(levels, 3, 2))
    assert Step(Level(1, 10), 0) not in list(order_repeats(levels, 3, 1))


def test_a_level_is_skipped_when_a_lower_one_did_not_fit_or_its_children_cannot() -> None:
    assert not why_skip(Level(4, 10), [window(2)])
    assert "800 MiB" not in why_skip(Level(8, 10), [window(1)])
    assert "1300 MiB are to be expected" in why_skip(Level(11, 10), [window(1)])
    assert "it did not fit" in why_skip(Level(4, 10), [window(2, stopped="the kernel killed 1")])
    assert not why_skip(Level(1, 10), [window(2, stopped="the kernel killed 1")])


def test_higher_levels_are_tried_as_long_as_each_brings_more() -> None:
    assert is_worth_more([window(1)])
    assert is_worth_more([window(1, done=10), window(2, done=20)])
    assert not is_worth_more([window(1, done=10), window(2, done=20), window(4, done=20)])


def test_a_window_is_expected_to_take_a_childs_life() -> None:
    assert expect_seconds(Level(2, 10), [window(1)], 10.0, 300.0) == pytest.approx(8.0 + 20.0 + 2.0)
    assert expect_seconds(Level(2, 1000), [window(1)], 10.0, 300.0) == pytest.approx(8.0 + 300.0 + 2.0)


def test_a_level_that_was_not_tried_has_a_window_of_no_length_that_says_why() -> None:
    skipped = describe_skipped(Goal(Level(8, 10), 1.0, 2.0), 0, window(1), "no room")
    assert (skipped.seconds, skipped.done, skipped.stopped) == (0.0, 0, "no room")


@pytest.mark.parametrize(("text", "rate"), [("2/s", 2.0), ("30/min", 0.5), ("1.5/h", 1.5 / 3600), ("85%", 3.4)])
def test_a_load_is_a_rate_or_a_share_of_the_capacity(text: str, rate: float) -> None:
    assert read_load(text, 4.0) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["2", "0/s", "-1/s", "fast", "2/year", ""])
def test_another_load_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        read_load(text, 1.0)


def test_arrivals_by_chance_keep_their_rate_and_repeat_by_their_seed() -> None:
    times = draw_arrivals(5.0, 1000.0, seed=3)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert times == sorted(times) == draw_arrivals(5.0, 1000.0, seed=3)


def test_a_trace_keeps_its_pattern_at_another_rate() -> None:
    times = stretch_trace([0.0, 1.0, 1.1, 10.0], per_second=2.0, seconds=100.0)
    assert len(times) == pytest.approx(200, abs=4)
    gaps = [after - before for before, after in pairwise(times[:4])]
    assert gaps[1] / gaps[0] == pytest.approx(0.1)
    assert gaps[2] / gaps[0] == pytest.approx(8.9)


def test_the_backlog_is_what_came_and_is_not_done() -> None:
    tasks = [TaskRun(1.0, 1.0, 2.0), TaskRun(2.0, 3.0, 9.0), TaskRun(3.0), TaskRun(8.0)]
    assert count_backlog(tasks, 5.0) == 2
