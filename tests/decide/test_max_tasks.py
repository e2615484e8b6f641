"""Rung 1: max-tasks-per-child follows what was learned, within the settings."""

from dataclasses import replace

from recyclery.decide.max_tasks import tune_max_tasks
from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.decide.policy_state import PolicyState
from support.snapshots import MIB, SETTINGS, child, policy_state, settings_with, slow_view, snapshot


def leaking(mib_per_task: int, lives: int = 6, tasks: int = 10) -> PolicyState:
    """A past in which each task of the slow pool left so much."""
    model = learn_idle(PoolModel(), 50 * MIB)
    for _ in range(lives):
        for done in range(tasks):
            before = (50 + done * mib_per_task) * MIB
            after = before + mib_per_task * MIB
            model = learn(model, TaskRun("slow", "scrape", done, before, before + 300 * MIB, after))
    return policy_state(models={"slow": model})


def tuned(past: PolicyState, current: int = 10, floor_mib: int = 400, most: int = 10) -> list[int]:
    seen = snapshot(child(), floor_mib=floor_mib, pools=(slow_view(max_tasks_per_child=current),))
    return [tune.max_tasks for tune in tune_max_tasks(seen, past, settings_with(max_tasks_per_child=most))]


def test_a_leak_lowers_the_limit_at_once_to_what_fits() -> None:
    (limit,) = tuned(leaking(40), floor_mib=460)
    assert 1 <= limit < 8


def test_without_a_leak_the_limit_is_left_alone() -> None:
    assert tuned(leaking(0)) == []


def test_with_nothing_learned_the_limit_is_left_alone() -> None:
    assert tuned(policy_state()) == []


def test_a_limit_above_the_settings_comes_down_to_them() -> None:
    assert tuned(policy_state(), current=20) == [10]


def test_the_limit_goes_up_again_by_a_tenth_and_only_after_clean_lifetimes() -> None:
    past = leaking(0)
    assert tuned(past, current=20, most=100) == []
    assert tuned(replace(past, clean_lifetimes={"slow": 2}), current=20, most=100) == [22]


def test_a_higher_number_in_the_settings_is_taken_at_once_as_far_as_was_learned() -> None:
    changed = replace(leaking(0), changed=frozenset({"slow"}))
    assert tuned(changed, current=20, most=100) == [100]
    assert tuned(policy_state(), current=20, most=100) == [100]


def test_a_budget_that_moves_a_little_changes_nothing() -> None:
    past = leaking(40)
    (limit,) = tuned(past, floor_mib=460)
    assert tuned(past, current=limit, floor_mib=465) == []


def test_a_worker_that_cannot_be_told_is_not() -> None:
    view = slow_view(retires=False, max_tasks_per_child=20)
    assert list(tune_max_tasks(snapshot(child(), pools=(view,)), policy_state(), SETTINGS)) == []
