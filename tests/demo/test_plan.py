"""The storm before it is sent."""

import pytest

from recyclery_demo.plan import MIXES, StormPlan, describe_habit, plan_storm

MIB = 1 << 20


def plan(mix: str = "browsers", tasks: int = 150, fast_tasks: int = 500, seed: int = 1) -> StormPlan:
    return plan_storm(MIXES[mix], tasks, fast_tasks, seed)


def left(planned: StormPlan) -> list[int]:
    return [scrape.leave_bytes // MIB for scrape in planned.scrapes]


@pytest.mark.parametrize("mix", MIXES)
def test_the_same_seed_plans_the_same_storm(mix: str) -> None:
    assert plan(mix, seed=7) == plan(mix, seed=7)


def test_another_seed_has_other_tasks_leak() -> None:
    assert plan(seed=7) != plan(seed=8)


def test_the_share_of_forgetful_tasks_is_exact() -> None:
    for seed in range(20):
        assert sum(scrape.forget for scrape in plan(seed=seed).scrapes) == 45


def test_in_browsers_each_task_leaves_5_mib() -> None:
    assert set(left(plan("browsers"))) == {5}


def test_in_steady_each_task_leaves_8_mib_and_none_its_browser() -> None:
    planned = plan("steady")
    assert set(left(planned)) == {8}
    assert not any(scrape.forget for scrape in planned.scrapes)


def test_in_rare_3_percent_leave_120_mib_and_the_others_nothing() -> None:
    amounts = left(plan("rare", tasks=200))
    assert (amounts.count(120), amounts.count(0)) == (6, 194)


def test_in_steps_one_task_in_40_takes_500_mib_and_leaves_nothing() -> None:
    planned = plan("steps", tasks=200)
    taken = [scrape.take_bytes // MIB for scrape in planned.scrapes]
    assert (taken.count(500), taken.count(0)) == (5, 195)
    assert set(left(planned)) == {0}


def test_in_warmup_every_child_fills_a_cache_of_60_mib_and_nothing_is_left() -> None:
    planned = plan("warmup")
    assert {scrape.cache_bytes // MIB for scrape in planned.scrapes} == {60}
    assert set(left(planned)) == {0}


def test_in_shift_the_second_half_leaves_20_mib_each() -> None:
    assert left(plan("shift", tasks=10)) == [0] * 5 + [20] * 5


def test_in_clean_nothing_is_left() -> None:
    for scrape in plan("clean").scrapes:
        assert (scrape.forget, scrape.leave_bytes, scrape.take_bytes, scrape.cache_bytes) == (False, 0, 0, 0)


def test_in_forks_every_task_shares_120_mib_and_nothing_is_left() -> None:
    planned = plan("forks")
    assert {scrape.share_bytes // MIB for scrape in planned.scrapes} == {120}
    assert set(left(planned)) == {0}


def test_in_tmpfs_every_task_leaves_a_file_of_60_mib() -> None:
    planned = plan("tmpfs")
    assert {scrape.file_bytes // MIB for scrape in planned.scrapes} == {60}
    assert set(left(planned)) == {0}


@pytest.mark.parametrize("mix", ["rare", "steps"])
def test_a_small_storm_has_its_rare_task_too(mix: str) -> None:
    assert sum(scrape.leave_bytes + scrape.take_bytes > 0 for scrape in plan(mix, tasks=12).scrapes) == 1


def test_the_forgetful_tasks_of_a_plan_are_counted_in_words() -> None:
    assert describe_habit(MIXES["browsers"], plan("browsers")) == "45 of them forget their browser"


def test_another_habit_is_said_in_the_mixs_words() -> None:
    assert describe_habit(MIXES["steady"], plan("steady")) == "every task leaves 8 MiB"


def test_light_tasks_come_five_a_second_from_the_start() -> None:
    due = [ping.due_seconds for ping in plan(fast_tasks=500).pings]
    assert (due[0], due[5], due[499], len(due)) == (0.0, 1.0, 99.8, 500)
