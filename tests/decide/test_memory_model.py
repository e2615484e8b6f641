"""What the memory model promises: how far a task reaches, and how long a child may live."""

import random
from itertools import pairwise
from statistics import NormalDist

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclery.common.statistics import chi_square_quantile, t_quantile
from recyclery.decide.max_tasks import (
    BACKSTOP_RISK,
    MIN_RECLAIMABLE_BYTES,
    adjust_max_tasks,
    choose_max_tasks,
    late_steps,
    must_retire,
)
from recyclery.decide.memory_model import (
    BEYOND_LARGEST,
    FALLEN_RUNS,
    KEPT_NAMES,
    KEPT_RUNS,
    RISEN_RUNS,
    GrowthStep,
    PoolModel,
    TaskRun,
    headroom_bytes,
    learn,
    learn_idle,
)

MIB = 1 << 20
BUDGET = 600 * MIB


def lives(*growths_mib: list[float], peak_mib: float = 350, name: str = "task") -> PoolModel:
    """A pool whose children left these MiB, task by task, from 60 MiB on; each inner list is a child."""
    return live_on(learn_idle(PoolModel(), 60 * MIB), *growths_mib, peak_mib=peak_mib, name=name)


def live_on(
    model: PoolModel, *growths_mib: list[float], peak_mib: float = 350, name: str = "task"
) -> PoolModel:
    """The same, from a model on."""
    for growths in growths_mib:
        tree = 60.0
        for place, growth in enumerate(growths):
            before, peak, after = (int(mib * MIB) for mib in (tree, tree + peak_mib, tree + growth))
            model = learn(model, TaskRun("slow", name, place, before, peak, after))
            tree += growth
    return model


def steps(*growths_mib: list[float]) -> tuple[GrowthStep, ...]:
    return lives(*growths_mib).steps


def noisy(growth_mib: float, tasks: int, seed: int, noise_mib: float = 3) -> list[float]:
    """One child that leaks so much per task under measured trees that wander."""
    chance = random.Random(seed)
    off = [chance.gauss(0, noise_mib) for _ in range(tasks + 1)]
    return [growth_mib + after - before for before, after in pairwise(off)]


WARM_UP = [60 / 2 ** (place / 4) / 6 for place in range(60)]
STEADY = [8.0] * 20


# What the next task may need.


def test_with_one_run_known_the_next_may_take_twice_as_much() -> None:
    assert headroom_bytes(PoolModel(tails=(100 * MIB,))) == 200 * MIB


def test_the_fewer_runs_are_known_the_more_is_kept_free() -> None:
    kept = [headroom_bytes(PoolModel(tails=(100 * MIB,) * known)) for known in range(1, 30)]
    assert kept == sorted(kept, reverse=True)


def test_peaks_that_differ_keep_more_free_than_the_largest_seen() -> None:
    tails = tuple(int(NormalDist(350, 10).inv_cdf((rank + 0.5) / 100) * MIB) for rank in range(100))
    assert max(tails) < headroom_bytes(PoolModel(tails=tails)) < max(tails) * BEYOND_LARGEST


def test_a_rare_large_peak_is_not_taken_for_a_tail_without_end() -> None:
    model = PoolModel(tails=(350 * MIB,) * 98 + (500 * MIB,) * 2)
    assert headroom_bytes(model) == int(500 * MIB * BEYOND_LARGEST)


tails = st.lists(st.integers(0, 2 << 30), min_size=1, max_size=KEPT_RUNS).map(tuple)


@given(tails, st.floats(0.001, 0.1), st.floats(1, 9))
def test_a_smaller_risk_never_keeps_less_free(known: tuple[int, ...], risk: float, factor: float) -> None:
    model = PoolModel(tails=known)
    assert headroom_bytes(model, risk) >= headroom_bytes(model, min(0.5, risk * factor)) >= max(known)


# The rule after every task.


def test_a_child_is_retired_when_its_tree_and_the_next_tail_pass_the_budget() -> None:
    model = PoolModel(60 * MIB, (350 * MIB,) * 50)
    assert must_retire(model, 250 * MIB, BUDGET, 350 * MIB) is None
    assert must_retire(model, 251 * MIB, BUDGET, 350 * MIB) == MIB


def test_no_child_is_retired_while_nothing_is_known() -> None:
    assert must_retire(PoolModel(), 10 * BUDGET, BUDGET, 0) is None


def test_a_child_hardly_above_a_fresh_one_stays_however_small_the_budget() -> None:
    model = PoolModel(60 * MIB, (350 * MIB,) * 50)
    assert must_retire(model, 60 * MIB + MIN_RECLAIMABLE_BYTES - 1, 100 * MIB, 350 * MIB) is None


def test_what_fresh_children_hold_now_counts_more_than_the_smallest_tree_ever_seen() -> None:
    model = learn_idle(lives([8], [8], [8]), 10 * MIB)
    assert (model.baseline_bytes, model.fresh_child_bytes) == (10 * MIB, 60 * MIB)


@given(tails, st.integers(0, 4 << 30), st.integers(0, 1 << 30), st.integers(0, 4 << 30))
def test_a_larger_tree_is_never_let_stay_where_a_smaller_one_must_go(
    known: tuple[int, ...], tree: int, more: int, budget: int
) -> None:
    model = PoolModel(0, known)
    smaller = must_retire(model, tree, budget, headroom_bytes(model))
    larger = must_retire(model, tree + more, budget, headroom_bytes(model))
    assert smaller is None or (larger is not None and larger == smaller + more)


# The number of tasks given beforehand.


def test_max_tasks_is_the_users_while_nothing_is_known() -> None:
    assert choose_max_tasks(PoolModel(), BUDGET, 100) == 100


def test_children_that_do_not_grow_get_the_users_max_tasks() -> None:
    assert choose_max_tasks(lives([0.0] * 50, [0.0] * 50), BUDGET, 100) == 100


def test_a_warm_up_is_not_taken_for_growth_without_end() -> None:
    assert choose_max_tasks(lives(WARM_UP, WARM_UP), BUDGET, 100) == 100


def test_a_steady_leak_gets_the_tasks_that_fit() -> None:
    # 600 - 60 - 350 leaves 190 MiB.
    assert choose_max_tasks(lives(STEADY, STEADY), BUDGET, 100) == 190 // 8


def test_growth_after_a_warm_up_is_reckoned_from_what_the_warm_up_left() -> None:
    # 40 MiB of warm-up leave 150 for the other tasks.
    growths = [10.0] * 4 + [5.0] * 20
    assert choose_max_tasks(lives(growths, growths), BUDGET, 100) == 4 + 150 // 5


def test_growth_that_grows_is_reckoned_from_the_second_half_of_a_life() -> None:
    faster = [0.6 * (place + 1) for place in range(24)]
    chosen = choose_max_tasks(lives(faster, faster), BUDGET, 100, risk=0.5)
    fits = max(tasks for tasks in range(24) if sum(faster[:tasks]) <= 190)
    assert fits - 3 <= chosen <= fits


def test_few_samples_make_max_tasks_careful() -> None:
    few, many = noisy(8, 10, 1), [noisy(8, 20, seed) for seed in range(10)]
    assert choose_max_tasks(lives(few), BUDGET, 100) < choose_max_tasks(lives(*many), BUDGET, 100)


def test_the_backstop_lets_more_tasks_run_than_a_number_nobody_watches() -> None:
    model = lives(*([noisy(8, 20, seed) for seed in range(10)]))
    assert choose_max_tasks(model, BUDGET, 100) < choose_max_tasks(model, BUDGET, 100, BACKSTOP_RISK)


@pytest.mark.parametrize("growth", [50.0, 400.0])
def test_a_child_runs_until_a_recycle_frees_something_where_none_fits(growth: float) -> None:
    assert choose_max_tasks(lives([growth] * 20, [growth] * 20), 100 * MIB, 100) == 1


growing = st.lists(st.lists(st.floats(-5, 40), min_size=1, max_size=30), min_size=1, max_size=8)


@given(growing, st.integers(1, 200), st.integers(0, 4000), st.integers(0, 2000), st.floats(0.001, 0.9))
def test_max_tasks_is_within_its_bounds_and_never_falls_when_the_budget_rises(
    growths: list[list[float]], most: int, budget_mib: int, more_mib: int, risk: float
) -> None:
    model = lives(*growths)
    less = choose_max_tasks(model, budget_mib * MIB, most, risk)
    more = choose_max_tasks(model, (budget_mib + more_mib) * MIB, most, risk)
    assert 1 <= less <= more <= most


@pytest.mark.parametrize(
    ("current", "clean", "wanted", "then"),
    [
        (20, 9, 19, 19),
        (20, 0, 3, 3),
        (20, 1, 40, 20),
        (20, 2, 40, 22),
        (20, 2, 23, 20),
        (20, 2, 24, 22),
        (1, 2, 2, 2),
        (5, 2, 100, 6),
    ],
)
def test_max_tasks_falls_at_once_and_rises_slowly_and_only_when_proven(
    current: int, clean: int, wanted: int, then: int
) -> None:
    assert adjust_max_tasks(current, clean, wanted) == then


counts = st.integers(1, 1000)


@given(counts, counts)
def test_max_tasks_settles_on_a_constant_wish_without_turning_back(current: int, wanted: int) -> None:
    taken = [current]
    for _ in range(100):
        taken.append(adjust_max_tasks(taken[-1], 2, wanted))
    assert taken in (sorted(taken), sorted(taken, reverse=True))
    assert taken[-1] == taken[-2]
    assert taken[-1] <= max(wanted, 1)
    assert taken[-1] * 1.15 >= wanted


# What is forgotten, and when.


def test_larger_peaks_push_out_the_older_ones_soon() -> None:
    light = lives([1.0] * 50, peak_mib=200)
    heavy = live_on(light, [1.0] * RISEN_RUNS, peak_mib=300)
    assert set(heavy.tails) == {300 * MIB}


def test_smaller_peaks_push_out_the_older_ones_only_when_it_was_no_lull() -> None:
    heavy = lives([1.0] * 50, peak_mib=300)
    assert 300 * MIB in live_on(heavy, [1.0] * (FALLEN_RUNS - 1), peak_mib=200).tails
    assert 300 * MIB not in live_on(heavy, [1.0] * FALLEN_RUNS, peak_mib=200).tails


def test_growth_that_rises_pushes_out_the_older_steps_soon() -> None:
    model = live_on(lives(*[[2.0] * 10] * 10), *[[12.0] * 8] * 2)
    assert {step.growth_bytes for step in model.steps} == {12 * MIB}


def test_growth_that_grows_over_every_life_is_no_shift() -> None:
    assert len(lives(*[[0.6 * place for place in range(25)]] * 3).steps) == 75


def test_a_warm_up_in_every_life_is_no_shift() -> None:
    assert len(lives(*[WARM_UP] * 3).steps) == 180


def test_what_is_kept_is_bounded_and_the_name_that_ran_longest_ago_goes_first() -> None:
    model = PoolModel()
    for number in range(KEPT_RUNS + KEPT_NAMES):
        model = live_on(model, [3.0], name=f"task{number}")
    assert (len(model.tails), len(model.steps), len(model.tasks)) == (KEPT_RUNS, KEPT_RUNS, KEPT_NAMES)
    assert next(iter(model.tasks)) == f"task{KEPT_RUNS}"
    assert len(msgspec.json.encode(lives(*[STEADY] * 20))) < 10_000


def test_the_costs_of_two_names_are_told_apart() -> None:
    model = PoolModel()
    for _ in range(20):
        model = live_on(live_on(model, [12.0], name="leaky"), [0.0], peak_mib=200, name="clean")
    leaky, clean = model.tasks["leaky"], model.tasks["clean"]
    assert (leaky.runs, leaky.growth_bytes, leaky.largest_tail_bytes) == (20, 12 * MIB, 350 * MIB)
    assert (clean.growth_bytes, clean.growth_variance, clean.largest_tail_bytes) == (0, 0, 200 * MIB)


@given(growing)
def test_a_stored_model_comes_back_the_same(growths: list[list[float]]) -> None:
    model = lives(*growths)
    assert msgspec.json.decode(msgspec.json.encode(model), type=PoolModel) == model


# The second half of a life.


def test_one_long_life_among_many_short_ones_does_not_set_the_half() -> None:
    assert len(late_steps(steps([1.0] * 28, *[[1.0] * 10] * 17))) > 90


# The estimates, against printed tables.


@pytest.mark.parametrize(("freedom", "t"), [(4, 2.132), (10, 1.812), (50, 1.676)])
def test_student_t_is_as_in_the_tables(freedom: int, t: float) -> None:
    assert t_quantile(0.95, freedom) == pytest.approx(t, abs=0.01)


@pytest.mark.parametrize(("freedom", "chi_square"), [(4, 0.711), (10, 3.940), (50, 34.76)])
def test_chi_square_is_as_in_the_tables(freedom: int, chi_square: float) -> None:
    assert chi_square_quantile(0.05, freedom) == pytest.approx(chi_square, rel=0.05)
