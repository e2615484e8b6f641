"""The storm before it is sent."""

from recyclery.demo.plan import plan_storm


def test_the_same_seed_plans_the_same_storm() -> None:
    assert plan_storm(150, 0.30, 5 << 20, 500, seed=7) == plan_storm(150, 0.30, 5 << 20, 500, seed=7)


def test_another_seed_has_other_tasks_leak() -> None:
    assert plan_storm(150, 0.30, 5 << 20, 500, seed=7) != plan_storm(150, 0.30, 5 << 20, 500, seed=8)


def test_the_share_of_leaking_tasks_is_exact() -> None:
    for seed in range(20):
        plan = plan_storm(150, 0.30, 5 << 20, 0, seed)
        assert sum(scrape.forget for scrape in plan.scrapes) == 45


def test_each_task_leaves_the_stated_memory() -> None:
    assert {scrape.leave_bytes for scrape in plan_storm(150, 0.30, 5 << 20, 0, seed=1).scrapes} == {5 << 20}


def test_light_tasks_come_five_a_second_from_the_start() -> None:
    due = [ping.due_seconds for ping in plan_storm(150, 0.30, 5 << 20, 500, seed=1).pings]
    assert (due[0], due[5], due[499], len(due)) == (0.0, 1.0, 99.8, 500)
