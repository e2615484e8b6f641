"""The regression: what noise of readings, shared by neighbours, does and does not do to it."""

import random

import pytest

from recyclery.leaks.regression import Difference, fit_kinds, without_odd

MIB = 1 << 20


def differences(left: dict[int, float], noise: float, runs: int = 400) -> list[Difference]:
    """One child's runs of several kinds, in random order, read with so much noise; in MiB."""
    chance = random.Random(7)
    tree, seen, found = 100.0, 100.0, []
    for number in range(runs):
        kind = chance.choice(list(left))
        tree += left[kind]
        now = tree + chance.gauss(0, noise)
        found.append(Difference({kind: 1}, (now - seen) * MIB, joined=number > 0))
        seen = now
    return found


def test_noise_that_neighbours_share_cancels_out() -> None:
    fit = fit_kinds(differences({0: 2.0}, noise=6), 1)
    mean, spread = fit.combine({0: 1})
    # Differences taken as independent would be sure to 0.4 MiB only.
    assert spread < 0.2 * MIB
    assert mean / MIB == pytest.approx(2, abs=0.2)
    assert fit.noise_bytes / MIB == pytest.approx(6, rel=0.15)


def test_kinds_in_one_life_are_told_apart_under_noise() -> None:
    fit = fit_kinds(differences({0: 8.0, 1: 0.0}, noise=1), 2)
    assert [round(mean / MIB) for mean in fit.means] == [8, 0]


def test_readings_without_noise_are_taken_for_what_they_are() -> None:
    fit = fit_kinds(differences({0: 2.0, 1: 0.0}, noise=0), 2)
    assert fit.means == pytest.approx((2 * MIB, 0), abs=100)
    assert fit.noise_bytes < 0.1 * MIB


def test_runs_that_ended_together_count_as_many_as_they_were() -> None:
    mixed = [Difference({0: 2, 1: 1}, 9 * MIB, False), Difference({0: 1, 1: 2}, 6 * MIB, False)] * 10
    assert fit_kinds(mixed, 2).means == pytest.approx((4 * MIB, 1 * MIB), rel=0.01)


@pytest.mark.parametrize("kinds", [2, 3])
def test_of_runs_that_always_ended_together_only_the_sum_is_sure(kinds: int) -> None:
    mix = dict.fromkeys(range(kinds), 1)
    chance = random.Random(7)
    fit = fit_kinds([Difference(mix, (3 + chance.gauss(0, 0.1)) * MIB, False) for _ in range(40)], kinds)
    mean, spread = fit.combine(dict.fromkeys(range(kinds), 1))
    assert mean / MIB == pytest.approx(3, abs=0.1)
    assert spread < 0.1 * MIB
    alone, unsure = fit.combine({0: 1})
    assert alone / MIB == pytest.approx(3 / kinds, abs=0.1)
    assert unsure > 100 * MIB


def test_of_a_kind_that_never_ran_nothing_is_known_and_the_others_are_told_as_ever() -> None:
    fit = fit_kinds(differences({0: 2.0, 2: 0.0}, noise=0.1), 3)
    assert [round(mean / MIB) for mean in fit.means] == [2, 0, 0]
    assert fit.combine({1: 1})[1] > 10_000 * MIB


def test_a_reading_far_off_is_taken_out_and_its_runs_counted_together() -> None:
    found = [Difference({0: 1}, float(MIB), True) for _ in range(20)]
    found[10:12] = [Difference({0: 1}, 41.0 * MIB, True), Difference({1: 1}, -39.0 * MIB, True)]
    cleaned = without_odd(found)
    assert cleaned[10] == Difference({0: 1, 1: 1}, 2.0 * MIB, True)
    assert len(cleaned) == 19


def test_a_step_that_stays_is_no_odd_reading() -> None:
    found = [Difference({0: 1}, float(MIB), True) for _ in range(20)]
    found[10] = Difference({0: 1}, 100.0 * MIB, True)
    assert without_odd(found) == found
