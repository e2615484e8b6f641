"""The answer: the right level in worlds that are known, the reason for it, and what is not asserted."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.config.load import CommandLine, load
from recyclery.decide.model import PoolModel, TaskRun, learn, learn_idle
from recyclery.tune.answer import Answer, answer
from recyclery.tune.estimates import Estimate
from recyclery.tune.plan import plan_next
from recyclery.tune.predict import Prediction, find_next
from recyclery.tune.windows import Level, Window
from recyclery.tune.wishes import Objective, Wishes
from support.tune_windows import asked
from tune.worlds import MIB, World, measure

CONCURRENCIES = (1, 2, 3, 4, 6, 8)
OBJECTIVES: tuple[Objective, ...] = ("throughput", "latency")
CPU = World(cpu_seconds=1, noise=0.08)
SLEEP = World(sleep_seconds=1, noise=0.08)
LOCK = World(lock_seconds=1, noise=0.08)
MEMORY = World(sleep_seconds=1, noise=0.08, limit_mib=640)


def run(
    world: World,
    seed: object = 0,
    *,
    concurrencies: Sequence[int] = CONCURRENCIES,
    tasks: Sequence[int] = (20,),
    repeats: int = 3,
) -> list[Window]:
    """Run each level."""
    return [
        measure(world, Level(places, number), repeat, 40, seed)
        for places in concurrencies
        for number in tasks
        for repeat in range(repeats)
    ]


def tune(world: World, seed: object, concurrencies: tuple[int, ...] = CONCURRENCIES) -> list[Window]:
    """Run levels as a tuning does that nobody told how often."""
    request = asked(concurrencies=concurrencies, max_tasks=(20,), repeats=3, most_repeats=10)
    windows: list[Window] = []
    while (step := plan_next(windows, request)) is not None:
        windows.append(measure(world, step.level, step.repeat, 40, seed))
    return windows


def recommended(found: Answer) -> Level | None:
    """Return the level to set."""
    return found.recommended.level if found.recommended else None


@pytest.mark.parametrize(
    "world",
    [pytest.param(CPU, marks=pytest.mark.slow), SLEEP, pytest.param(LOCK, marks=pytest.mark.slow), MEMORY],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_the_right_level_or_its_neighbour_is_recommended_in_19_of_20_runs(world: World) -> None:
    right = CONCURRENCIES.index(world.best(CONCURRENCIES))
    hits = 0
    for seed in range(20):
        level = recommended(answer(tune(world, seed), Wishes()))
        hits += level is not None and abs(CONCURRENCIES.index(level.concurrency) - right) <= 1
    assert hits >= 19


@pytest.mark.parametrize(
    ("world", "binds"),
    [(CPU, "CPU"), (SLEEP, "nothing"), (LOCK, "elsewhere"), (MEMORY, "memory")],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_what_binds_at_the_highest_level_is_named(world: World, binds: str) -> None:
    assert answer(run(world), Wishes()).levels[-1].binds == binds


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (CPU, "the CPUs are full"),
        (SLEEP, "more may do more"),
        (LOCK, "for a lock, a service"),
        (MEMORY, "the hard level of the memory"),
    ],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_the_reason_is_two_sentences_and_says_what_keeps_more_from_doing_better(
    world: World, words: str
) -> None:
    reason = answer(run(world), Wishes()).reason
    assert words in reason
    assert reason.count(". ") == 1
    assert reason.endswith(".")


def test_a_machine_that_is_not_always_as_fast_does_not_hide_a_level_that_does_more() -> None:
    world = World(sleep_seconds=0.15, cpu_seconds=1, cores=1, drift=0.25, noise=0.02)
    found = [recommended(answer(tune(world, seed, (1, 2)), Wishes())) for seed in range(20)]
    assert sum(level == Level(2, 20) for level in found) >= 19


def test_where_less_may_do_as_much_it_is_said() -> None:
    world = World(sleep_seconds=0.15, cpu_seconds=1, cores=1, noise=0.08)
    said = [answer(run(world, seed, concurrencies=(1, 2)), Wishes()).doubts for seed in range(20)]
    assert any(doubt.startswith("Concurrency 1 may do as much") for doubts in said for doubt in doubts)


def test_the_errors_that_tasks_failed_with_are_named() -> None:
    windows = [replace(window, errors=4, failures=(("Lost", 3), ("Late", 1))) for window in run(SLEEP)]
    found = answer(windows, Wishes())
    assert found.levels[0].obstacle == "10% of the tasks failed, most of them with Lost"
    kept = [replace(window, errors=1, failures=(("Lost", 1),)) for window in run(SLEEP, concurrencies=(1, 2))]
    assert "Tasks failed: Lost (6)." in answer(kept, Wishes()).doubts


def test_of_levels_that_do_the_same_the_smallest_is_recommended() -> None:
    assert recommended(answer(run(LOCK), Wishes())) == Level(1, 20)


def test_a_level_with_an_oom_kill_is_not_recommended() -> None:
    windows = [
        replace(window, oom_kills=1) if window.level.concurrency == 8 else window for window in run(SLEEP)
    ]
    found = answer(windows, Wishes())
    assert recommended(found) == Level(6, 20)
    assert "killed 3 processes" in found.levels[-1].obstacle


def test_a_level_at_which_tasks_fail_is_not_recommended() -> None:
    windows = [replace(window, errors=4) if window.level.concurrency == 8 else window for window in run(SLEEP)]
    found = answer(windows, Wishes())
    assert recommended(found) == Level(6, 20)
    assert found.levels[-1].obstacle == "10% of the tasks failed"


def test_a_level_with_few_tasks_is_shown_and_not_recommended() -> None:
    few = [measure(SLEEP, Level(16, 20), 0, 12, 0)]
    found = answer([*run(SLEEP), *few], Wishes())
    assert recommended(found) == Level(8, 20)
    assert found.levels[-1].obstacle == "12 tasks are too few to tell"


def test_a_slower_level_is_recommended_where_the_objective_asks_for_it() -> None:
    # With a CPU each, tasks take 1 s; at four they take 2 s.
    fast = replace(CPU, sleep_seconds=0.5)
    free, bound = (recommended(answer(run(fast), Wishes(slo_seconds=slo))) for slo in (60.0, 2.2))
    assert free is not None
    assert bound is not None
    assert bound.concurrency < free.concurrency


def test_for_latency_tasks_are_not_let_wait_for_a_cpu() -> None:
    world = World(sleep_seconds=0.3, cpu_seconds=0.7, noise=0.02)
    free, quick = (recommended(answer(run(world), Wishes(objective=wanted))) for wanted in OBJECTIVES)
    assert free is not None
    assert free.concurrency >= 3
    assert quick is not None
    assert quick.concurrency <= 2


def test_for_latency_too_tasks_that_do_not_slow_each_other_run_together() -> None:
    assert recommended(answer(run(SLEEP), Wishes(objective="latency"))) == Level(8, 20)


def test_an_objective_that_no_level_meets_recommends_none_and_says_so() -> None:
    found = answer(run(SLEEP), Wishes(slo_seconds=0.1))
    assert found.recommended is None
    assert found.reason.startswith("No level can be recommended.")
    assert "over 0.1 s" in found.reason


def test_a_smaller_limit_than_that_of_the_run_is_held_to() -> None:
    level = recommended(answer(run(SLEEP), Wishes(memory_bytes=640 * MIB)))
    assert level is not None
    assert SLEEP.height_mib(level.concurrency, 20) < 0.9 * 640


def test_the_limit_recommended_lets_the_peak_stay_below_the_level_of_retirement() -> None:
    found = answer(run(CPU), Wishes()).recommended
    assert found is not None
    assert found.measured.highest_floor_bytes < 0.8 * found.memory_limit_bytes
    assert found.memory_limit_bytes < 2 * found.measured.highest_floor_bytes


def test_where_children_left_for_memory_no_smaller_limit_is_recommended() -> None:
    windows = [replace(window, recycles=(("budget", 3),)) for window in run(CPU)]
    found = answer(windows, Wishes()).recommended
    assert found is not None
    assert found.memory_limit_bytes == windows[0].limit_bytes


def test_of_numbers_of_tasks_per_child_that_hold_as_much_the_largest_is_recommended() -> None:
    level = recommended(answer(run(CPU, tasks=(10, 40)), Wishes()))
    assert level == Level(2, 40)


def test_of_numbers_of_tasks_per_child_of_a_leak_the_one_that_holds_less_is_recommended() -> None:
    level = recommended(answer(run(replace(CPU, growth_mib=4), tasks=(10, 40)), Wishes()))
    assert level == Level(2, 10)


def test_a_number_of_tasks_that_children_have_no_room_for_is_lowered_by_what_was_learned() -> None:
    model = learn_idle(PoolModel(), 40 * MIB)
    for place in range(20):
        before = (40 + 30 * place) * MIB
        model = learn(model, TaskRun("slow", "leak", place, before, before + 60 * MIB, before + 30 * MIB))
    world = replace(CPU, limit_mib=1000)
    free = recommended(answer(run(world), Wishes()))
    held = recommended(answer(run(world), Wishes(), model))
    assert free == Level(2, 20)
    assert held is not None
    # 800 MiB less the main process for two, each 40 at first and 60 on top: some 8 tasks of 30.
    assert 5 <= held.max_tasks_per_child <= 9


def test_a_level_not_run_that_promises_more_is_said_to_be_worth_a_run() -> None:
    found = answer(run(replace(SLEEP, noise=0.03), concurrencies=(1, 2, 4, 8)), Wishes())
    assert found.next_level is not None
    assert not found.next_level.was_run
    assert found.next_level.level.concurrency > 8


def test_no_level_is_worth_a_run_for_which_there_is_no_memory() -> None:
    world = replace(SLEEP, noise=0.03, limit_mib=SLEEP.height_mib(8, 1) / 0.85)
    assert answer(run(world, concurrencies=(1, 2, 4, 8)), Wishes()).next_level is None


def test_a_level_that_was_run_is_never_said_to_be_worth_a_run() -> None:
    more = Estimate(9, 8, 10)
    run_before, other = (Prediction(Level(places, 20), places == 6, more, None, True) for places in (6, 7))
    assert find_next([run_before, other], Estimate(5, 4, 6)) == other


def test_levels_that_were_run_and_others_are_told_apart_among_the_predictions() -> None:
    predictions = answer(run(CPU), Wishes()).predictions
    assert [one.level.concurrency for one in predictions if one.was_run] == list(CONCURRENCIES)
    assert {5, 7, 9} <= {one.level.concurrency for one in predictions if not one.was_run}


def test_three_levels_give_an_answer_and_no_law_of_throughput() -> None:
    found = answer(run(CPU, concurrencies=(1, 2, 4)), Wishes())
    assert recommended(found) == Level(2, 20)
    assert any(doubt.startswith("No throughput is predicted: 3 levels") for doubt in found.doubts)


def test_levels_run_once_are_said_to_be_unsure() -> None:
    found = answer(run(CPU, repeats=1), Wishes())
    assert "The level ran once: how much repeats of it would differ is not known." in found.doubts


def test_a_load_is_told_how_many_containers_it_needs_and_on_what_terms() -> None:
    found = answer(run(CPU), Wishes(arrivals_per_second=10))
    assert found.fleet is not None
    # Two a second each, at most 80 % of that.
    assert 6 <= found.fleet.containers <= 8
    assert any("arrivals at random into one queue" in doubt for doubt in found.doubts)


def test_nothing_measured_is_answered_with_nothing() -> None:
    found = answer([], Wishes())
    assert found.recommended is None
    assert found.reason == "Nothing was measured. Run at least one level."


def test_a_run_whose_every_window_was_given_up_says_why() -> None:
    found = answer(run(replace(SLEEP, limit_mib=150), concurrencies=(1, 2)), Wishes())
    assert found.recommended is None
    assert "the floor passed the hard level" in found.reason


def test_the_conf_and_the_variables_are_what_the_supervisor_reads(tmp_path: Path) -> None:
    found = answer(run(CPU), Wishes(pool="slow")).recommended
    assert found is not None
    conf = tmp_path / "recyclery.toml"
    conf.write_text(f'app = "shop"\n{found.conf}\n')
    by_file = load(CommandLine(config=str(conf)), {})
    by_environment = load(CommandLine(app="shop"), {"CELERY_WORKER_NAME": "slow", **found.environment})
    for settings in (by_file, by_environment):
        (pool,) = settings.pools
        assert (pool.name, pool.concurrency, pool.max_tasks_per_child) == ("slow", 2, 20)
        assert settings.memory.limit_bytes == found.memory_limit_bytes
