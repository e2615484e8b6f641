"""What levels do beside each other, whatever the machine did to whole rounds."""

import pytest

from recyclery.tune.spec import Level
from recyclery.tune.statistics import estimate_rates
from support.tune_windows import window


def test_what_made_a_round_slow_for_all_its_levels_is_not_taken_for_noise() -> None:
    rates = estimate_rates(
        [window(k, done=k * fast, repeat=r) for r, fast in enumerate((4, 9)) for k in (1, 2, 5)]
    )
    assert rates.spread.share == pytest.approx(0, abs=1e-6)
    assert rates.spread.freedom == 2
    assert [rates.per_second[Level(k, 10)] for k in (1, 2, 5)] == pytest.approx([0.6, 1.2, 3.0])


def test_a_level_that_was_not_in_the_slow_rounds_is_not_taken_for_a_fast_one() -> None:
    rounds = {0: (1, 2), 1: (1, 2), 2: (2,), 3: (2,)}
    speed = {0: 40, 1: 40, 2: 10, 3: 10}
    windows = [window(k, done=k * speed[r], repeat=r) for r, levels in rounds.items() for k in levels]
    rates = estimate_rates(windows).per_second
    assert rates[Level(2, 10)] / rates[Level(1, 10)] == pytest.approx(2)


def test_what_levels_do_apart_from_their_rounds_is_noise() -> None:
    rates = estimate_rates([window(1, 10), window(2, 22), window(1, 12, repeat=1), window(2, 20, repeat=1)])
    assert rates.spread.share > 0.05
    assert rates.spread.freedom == 1


def test_one_round_tells_nothing_of_noise() -> None:
    assert estimate_rates([window(1), window(2, 20)]).spread == (0.0, 0)


def test_a_level_with_a_window_in_which_nothing_ended_well_has_no_rate() -> None:
    rates = estimate_rates([window(1), window(2), window(2, done=0, repeat=1)])
    assert list(rates.per_second) == [Level(1, 10)]


def test_nothing_measured_has_no_rates() -> None:
    assert not estimate_rates([]).per_second
