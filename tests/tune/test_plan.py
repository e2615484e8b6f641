"""Which levels are tried in what order, and which are not."""

import math
import random
from collections.abc import Callable
from itertools import groupby, pairwise

import pytest

from recyclery.tune.plan import PlannedWindow, expect_seconds, is_worth_more, list_ahead, plan_next, why_skip
from recyclery.tune.spec import Level, Spec, draw_arrivals, parse_rate, stretch_trace
from recyclery.tune.window import TaskEvents, TaskTimes, Window, skip_window
from support.tune_windows import asked, window

# Tasks that end in a window.
DONE = {1: 10, 2: 20, 4: 30, 8: 30, 16: 30}


def follow(spec: Spec, measured: Callable[[PlannedWindow], Window] | None = None) -> list[PlannedWindow]:
    """Return the steps of a tuning whose levels do what `measured` says, else as in DONE."""
    steps: list[PlannedWindow] = []
    windows: list[Window] = []
    while (step := plan_next(windows, spec)) is not None:
        steps.append(step)
        places = step.level.concurrency
        windows.append(measured(step) if measured else window(places, done=DONE[places], repeat=step.repeat))
    return steps


def rounds_of(steps: list[PlannedWindow]) -> list[list[int]]:
    """Return the concurrencies of each round, in the order they ran."""
    return [[step.level.concurrency for step in group] for _, group in groupby(steps, lambda step: step.repeat)]


def shaky(step: PlannedWindow) -> Window:
    """Measure levels of which 4, 8 and 16 do the same, but for noise of a fifth."""
    chance = random.Random(f"{step}")
    places = step.level.concurrency
    return window(places, done=round(DONE[places] * math.exp(chance.gauss(0, 0.2))), repeat=step.repeat)


def test_the_first_round_goes_upwards_and_each_later_one_has_all_levels_in_an_order_of_its_own() -> None:
    first, *later = rounds_of(follow(asked()))
    assert first == [1, 2, 4, 8, 16]
    assert [sorted(each) for each in later] == [first] * 3
    assert len({tuple(each) for each in later}) == 3


def test_the_same_seed_gives_the_same_order() -> None:
    assert follow(asked()) == follow(asked())
    assert follow(asked()) != follow(asked(seed=8))


def test_a_tuning_that_was_stopped_goes_on_with_the_step_that_was_next() -> None:
    spec = asked(repeats=3, most_repeats=10)
    steps = follow(spec, shaky)
    windows = [shaky(step) for step in steps]
    assert [plan_next(windows[:count], spec) for count in range(len(steps))] == steps


def test_levels_that_nobody_named_are_tried_as_long_as_each_brings_more() -> None:
    assert rounds_of(follow(asked(asked_for=False)))[0] == [1, 2, 4, 8]


def test_below_a_level_that_does_not_fit_those_between_are_tried_by_halves() -> None:
    def narrow(step: PlannedWindow) -> Window:
        places = step.level.concurrency
        return window(places, done=10 * places, repeat=step.repeat, stopped="full" if places > 6 else "")

    assert rounds_of(follow(asked(asked_for=False), narrow))[0] == [1, 2, 4, 8, 6, 7]


def test_a_level_that_does_more_only_in_a_later_round_opens_the_next() -> None:
    def unlucky(step: PlannedWindow) -> Window:
        places = step.level.concurrency
        done = 9 if step == PlannedWindow(Level(2, 10), 0) else DONE[places]
        return window(places, done=done, repeat=step.repeat)

    rounds = rounds_of(follow(asked(asked_for=False), unlucky))
    assert rounds[0] == [1, 2]
    assert 4 in rounds[1]
    assert 8 in rounds[-1]


def test_levels_near_the_best_have_further_rounds_until_they_are_told_apart() -> None:
    rounds = rounds_of(follow(asked(repeats=3, most_repeats=10), shaky))
    assert len(rounds) > 3
    assert all(set(each) <= {4, 8, 16} for each in rounds[3:])


def test_no_further_rounds_are_run_where_there_is_no_noise() -> None:
    assert len(rounds_of(follow(asked(repeats=3, most_repeats=10)))) == 3


def test_rounds_end_at_their_most_however_much_noise_there_is() -> None:
    assert len(rounds_of(follow(asked(repeats=2, most_repeats=4), shaky))) == 4


def test_as_many_repeats_as_somebody_named_are_run_whatever_the_noise() -> None:
    assert len(rounds_of(follow(asked(), shaky))) == 4


def test_a_level_that_was_given_up_is_not_repeated() -> None:
    def full(step: PlannedWindow) -> Window:
        return window(
            step.level.concurrency, repeat=step.repeat, stopped="full" * (step.level.concurrency == 16)
        )

    assert sum(step.level.concurrency == 16 for step in follow(asked(), full)) == 1


def test_what_is_ahead_is_counted_down_to_the_last_window() -> None:
    spec = asked(repeats=3, most_repeats=3)
    steps = follow(spec)
    windows = [window(step.level.concurrency, repeat=step.repeat) for step in steps]
    ahead = [len(list_ahead(step.repeat, windows[:done], spec)) for done, step in enumerate(steps)]
    assert ahead == list(range(15, 0, -1))


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
    assert expect_seconds(Level(2, 10), [window(1)], asked()) == pytest.approx(8.0 + 20.0 + 2.0)
    assert expect_seconds(Level(2, 1000), [window(1)], asked()) == pytest.approx(8.0 + 300.0 + 2.0)


def test_a_level_that_was_not_tried_has_a_window_of_no_length_that_says_why() -> None:
    skipped = skip_window(Level(8, 10), 0, window(1), "no room")
    assert (skipped.seconds, skipped.done, skipped.stopped) == (0.0, 0, "no room")


@pytest.mark.parametrize(("text", "rate"), [("2/s", 2.0), ("30/min", 0.5), ("1.5/h", 1.5 / 3600), ("85%", 3.4)])
def test_a_load_is_a_rate_or_a_share_of_the_capacity(text: str, rate: float) -> None:
    assert parse_rate(text, 4.0) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["2", "0/s", "-1/s", "fast", "2/year", ""])
def test_another_load_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no rate"):
        parse_rate(text, 1.0)


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
    tasks = [TaskTimes(1.0, 1.0, 2.0), TaskTimes(2.0, 3.0, 9.0), TaskTimes(3.0), TaskTimes(8.0)]
    assert TaskEvents(dict(enumerate(tasks))).count_backlog(5.0) == 2
