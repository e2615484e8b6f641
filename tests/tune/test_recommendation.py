"""The recommendation: the right level in worlds that are known, its explanation, and its caveats."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.config.sources import CommandLine, load_settings
from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.tune.plan import plan_next
from recyclery.tune.recommendation import Recommendation, recommend
from recyclery.tune.spec import Level, Objective, ObjectiveMetric
from recyclery.tune.window import Window
from support.tune_windows import asked
from tune.worlds import MIB, World, measure

CONCURRENCIES = (1, 2, 3, 4, 6, 8)
METRICS: tuple[ObjectiveMetric, ...] = ("throughput", "latency")
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


def recommended(found: Recommendation) -> Level | None:
    """Return the level to set."""
    return found.settings.level if found.settings else None


@pytest.mark.parametrize(
    "world",
    [pytest.param(CPU, marks=pytest.mark.slow), SLEEP, pytest.param(LOCK, marks=pytest.mark.slow), MEMORY],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_the_right_level_or_its_neighbour_is_recommended_in_19_of_20_runs(world: World) -> None:
    right = CONCURRENCIES.index(world.best(CONCURRENCIES))
    hits = 0
    for seed in range(20):
        level = recommended(recommend(tune(world, seed), Objective()))
        hits += level is not None and abs(CONCURRENCIES.index(level.concurrency) - right) <= 1
    assert hits >= 19


@pytest.mark.parametrize(
    ("world", "bottleneck"),
    [(CPU, "CPU"), (SLEEP, "none"), (LOCK, "elsewhere"), (MEMORY, "memory")],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_the_bottleneck_at_the_highest_level_is_named(world: World, bottleneck: str) -> None:
    assert recommend(run(world), Objective()).levels[-1].bottleneck == bottleneck


@pytest.mark.parametrize(
    ("world", "words"),
    [
        (CPU, "the CPUs are full"),
        (SLEEP, "higher levels were not tried"),
        (LOCK, "such as a lock or a service"),
        (MEMORY, "the hard level of the memory"),
    ],
    ids=["CPU", "sleep", "lock", "memory"],
)
def test_the_explanation_is_two_sentences_and_says_what_keeps_more_from_doing_better(
    world: World, words: str
) -> None:
    explanation = recommend(run(world), Objective()).explanation
    assert words in explanation
    assert explanation.count(". ") == 1
    assert explanation.endswith(".")


def test_a_machine_that_is_not_always_as_fast_does_not_hide_a_level_that_does_more() -> None:
    world = World(sleep_seconds=0.15, cpu_seconds=1, cores=1, drift=0.25, noise=0.02)
    found = [recommended(recommend(tune(world, seed, (1, 2)), Objective())) for seed in range(20)]
    assert sum(level == Level(2, 20) for level in found) >= 19


def test_where_less_may_do_as_much_it_is_said() -> None:
    world = World(sleep_seconds=0.15, cpu_seconds=1, cores=1, noise=0.08)
    said = [recommend(run(world, seed, concurrencies=(1, 2)), Objective()).caveats for seed in range(20)]
    assert any(caveat.startswith("Concurrency 1 may do as much") for caveats in said for caveat in caveats)


def test_the_errors_that_tasks_failed_with_are_named() -> None:
    windows = [replace(window, errors=4, failures=(("Lost", 3), ("Late", 1))) for window in run(SLEEP)]
    found = recommend(windows, Objective())
    assert found.levels[0].rejection == "10% of the tasks failed, most of them with Lost"
    kept = [replace(window, errors=1, failures=(("Lost", 1),)) for window in run(SLEEP, concurrencies=(1, 2))]
    assert "Tasks failed: Lost (6)." in recommend(kept, Objective()).caveats


def test_of_levels_that_do_the_same_the_smallest_is_recommended() -> None:
    assert recommended(recommend(run(LOCK), Objective())) == Level(1, 20)


def test_a_level_with_an_oom_kill_is_not_recommended() -> None:
    windows = [
        replace(window, oom_kills=1) if window.level.concurrency == 8 else window for window in run(SLEEP)
    ]
    found = recommend(windows, Objective())
    assert recommended(found) == Level(6, 20)
    assert "killed 3 processes" in found.levels[-1].rejection


def test_a_level_at_which_tasks_fail_is_not_recommended() -> None:
    windows = [replace(window, errors=4) if window.level.concurrency == 8 else window for window in run(SLEEP)]
    found = recommend(windows, Objective())
    assert recommended(found) == Level(6, 20)
    assert found.levels[-1].rejection == "10% of the tasks failed"


def test_a_level_with_few_tasks_is_shown_and_not_recommended() -> None:
    few = [measure(SLEEP, Level(16, 20), 0, 12, 0)]
    found = recommend([*run(SLEEP), *few], Objective())
    assert recommended(found) == Level(8, 20)
    assert found.levels[-1].rejection == "12 tasks are too few to tell"


def test_a_slower_level_is_recommended_where_the_objective_asks_for_it() -> None:
    # With a CPU each, tasks take 1 s; at four they take 2 s.
    fast = replace(CPU, sleep_seconds=0.5)
    free, bound = (recommended(recommend(run(fast), Objective(slo_seconds=slo))) for slo in (60.0, 2.2))
    assert free is not None
    assert bound is not None
    assert bound.concurrency < free.concurrency


def test_for_latency_tasks_are_not_let_wait_for_a_cpu() -> None:
    world = World(sleep_seconds=0.3, cpu_seconds=0.7, noise=0.02)
    free, quick = (recommended(recommend(run(world), Objective(metric=wanted))) for wanted in METRICS)
    assert free is not None
    assert free.concurrency >= 3
    assert quick is not None
    assert quick.concurrency <= 2


def test_for_latency_too_tasks_that_do_not_slow_each_other_run_together() -> None:
    assert recommended(recommend(run(SLEEP), Objective(metric="latency"))) == Level(8, 20)


def test_an_objective_that_no_level_meets_recommends_none_and_says_so() -> None:
    found = recommend(run(SLEEP), Objective(slo_seconds=0.1))
    assert found.settings is None
    assert found.explanation.startswith("No level can be recommended.")
    assert "over 0.1 s" in found.explanation


def test_a_smaller_limit_than_that_of_the_run_is_held_to() -> None:
    level = recommended(recommend(run(SLEEP), Objective(memory_bytes=640 * MIB)))
    assert level is not None
    assert SLEEP.height_mib(level.concurrency, 20) < 0.9 * 640


def test_the_limit_recommended_lets_the_peak_stay_below_the_level_of_retirement() -> None:
    found = recommend(run(CPU), Objective()).settings
    assert found is not None
    assert found.result.highest_floor_bytes < 0.8 * found.memory_limit_bytes
    assert found.memory_limit_bytes < 2 * found.result.highest_floor_bytes


def test_where_children_left_for_memory_no_smaller_limit_is_recommended() -> None:
    windows = [replace(window, recycles=(("budget", 3),)) for window in run(CPU)]
    found = recommend(windows, Objective()).settings
    assert found is not None
    assert found.memory_limit_bytes == windows[0].limit_bytes


def test_of_numbers_of_tasks_per_child_that_hold_as_much_the_largest_is_recommended() -> None:
    level = recommended(recommend(run(CPU, tasks=(10, 40)), Objective()))
    assert level == Level(2, 40)


def test_of_numbers_of_tasks_per_child_of_a_leak_the_one_that_holds_less_is_recommended() -> None:
    level = recommended(recommend(run(replace(CPU, growth_mib=4), tasks=(10, 40)), Objective()))
    assert level == Level(2, 10)


def test_a_number_of_tasks_that_children_have_no_room_for_is_lowered_by_what_was_learned() -> None:
    model = learn_idle(PoolModel(), 40 * MIB)
    for place in range(20):
        before = (40 + 30 * place) * MIB
        model = learn(model, TaskRun("slow", "leak", place, before, before + 60 * MIB, before + 30 * MIB))
    world = replace(CPU, limit_mib=1000)
    free = recommended(recommend(run(world), Objective()))
    held = recommended(recommend(run(world), Objective(), model))
    assert free == Level(2, 20)
    assert held is not None
    # 800 MiB less the main process for two, each 40 at first and 60 on top: some 8 tasks of 30.
    assert 5 <= held.max_tasks_per_child <= 9


def test_three_levels_give_an_answer() -> None:
    found = recommend(run(CPU, concurrencies=(1, 2, 4)), Objective())
    assert recommended(found) == Level(2, 20)


def test_levels_run_once_are_said_to_be_unsure() -> None:
    found = recommend(run(CPU, repeats=1), Objective())
    assert "The level ran once: how much repeats of it would differ is not known." in found.caveats


def test_a_load_is_told_how_many_containers_it_needs_and_on_what_terms() -> None:
    found = recommend(run(CPU), Objective(arrivals_per_second=10))
    assert found.fleet is not None
    # Two a second each, at most 80 % of that.
    assert 6 <= found.fleet.containers <= 8
    assert any("arrivals at random into one queue" in caveat for caveat in found.caveats)


def test_nothing_measured_is_answered_with_nothing() -> None:
    found = recommend([], Objective())
    assert found.settings is None
    assert found.explanation == "Nothing was measured. Run at least one level."


def test_a_run_whose_every_window_was_given_up_says_why() -> None:
    found = recommend(run(replace(SLEEP, limit_mib=150), concurrencies=(1, 2)), Objective())
    assert found.settings is None
    assert "the floor passed the hard level" in found.explanation


def test_the_conf_and_the_variables_are_what_the_supervisor_reads(tmp_path: Path) -> None:
    found = recommend(run(CPU), Objective(pool="slow")).settings
    assert found is not None
    conf = tmp_path / "recyclery.toml"
    conf.write_text(f'app = "shop"\n{found.conf}\n')
    by_file = load_settings(CommandLine(config=str(conf)), {})
    by_environment = load_settings(
        CommandLine(options={"--app": "shop"}), {"CELERY_WORKER_NAME": "slow", **found.environment}
    )
    for settings in (by_file, by_environment):
        (pool,) = settings.pools
        assert (pool.name, pool.concurrency, pool.max_tasks_per_child) == ("slow", 2, 20)
        assert settings.memory.limit_bytes == found.memory_limit_bytes
