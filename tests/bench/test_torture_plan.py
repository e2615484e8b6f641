"""The torture's plan, and the judgement of how a session ended."""

from typing import Any

import pytest

from benchmarks.browsers_app import RUNS
from benchmarks.browsers_torture_plan import KINDS, Session, judge, make_plan

DONE = {"status": "SUCCESS", "result": "done"}


def failed(error: str) -> dict[str, Any]:
    return {"status": "FAILURE", "result": {"exc_type": error, "exc_message": ["so"]}}


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert make_plan(60, 7) == make_plan(60, 7)
    assert make_plan(60, 7) != make_plan(60, 8)


def test_every_kind_is_in_a_plan_that_has_room_for_all() -> None:
    for seed in range(20):
        plan = make_plan(len(KINDS), seed)
        assert sorted(session.kind for session in plan) == sorted(KINDS)
    assert len(make_plan(1000, 1)) == 1000


def test_every_kind_has_a_task_that_does_it() -> None:
    assert set(RUNS) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "result", "runs"),
    [
        ("well", DONE, 1),
        ("well", DONE, 2),
        ("child killed", DONE, 2),
        ("exception", failed("Mishap"), 1),
        ("page never comes", failed("TimeoutException"), 1),
        ("hard limit", failed("TimeLimitExceeded"), 1),
        ("browser killed, raw", failed("InvalidSessionIdException"), 1),
        ("chromedriver killed", failed("MaxRetryError"), 1),
    ],
)
def test_a_session_that_ended_as_its_kind_demands_is_right(
    kind: str, result: dict[str, Any], runs: int
) -> None:
    assert judge(Session(1, kind, 0.5), result, runs) is None


@pytest.mark.parametrize(
    ("kind", "result", "runs", "problem"),
    [
        ("well", None, 1, "no result after 1 runs"),
        ("well", failed("TimeoutException"), 1, "TimeoutException"),
        ("child killed", DONE, 1, "1 runs, of 2 at least"),
        ("child killed", failed("WorkerLostError"), 2, "WorkerLostError"),
        ("exception", DONE, 1, "SUCCESS, where it had to fail"),
        ("exception", failed("TimeLimitExceeded"), 1, "failed by TimeLimitExceeded"),
        ("browser killed", failed("TimeLimitExceeded"), 1, "failed by TimeLimitExceeded"),
    ],
)
def test_a_session_that_ended_otherwise_is_wrong_and_it_is_said_how(
    kind: str, result: dict[str, Any] | None, runs: int, problem: str
) -> None:
    assert problem in (judge(Session(1, kind, 0.5), result, runs) or "")
