"""Workers that are up and of no use: when they are ended, and when they are left alone."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import KillWorker, ReplaceWorker
from recyclery.decide.policy_state import RestartBackoff, Unhealthy
from recyclery.decide.worker_health import (
    HANG_SECONDS,
    STARVE_SECONDS,
    end_overdue,
    restart_unhealthy,
    update_worker_health,
)
from recyclery.observe.snapshot import PoolView, Snapshot, Vitals
from support.snapshots import (
    AT,
    CHILD,
    SETTINGS,
    child,
    policy_state,
    process,
    settings_with,
    slow_view,
    snapshot,
)

MAIN = process(10, name="python", started=10.0)
LIVELY = Vitals(
    pid=10, answered=AT, last_heartbeat=AT, broker_answers=True, consumes=frozenset({"low"}), waiting=0
)
STARVING = replace(LIVELY, has_room=True, waiting=3)
SILENT = replace(LIVELY, answered=AT - 45, last_heartbeat=AT - 45, broker_answers=None, waiting=None)
AWAY = replace(LIVELY, broker_answers=False, waiting=None)

NOT_ANSWERING: dict[str, object] = {"state": PoolState.NOT_ANSWERING}


def seen(vitals: Vitals | None, *others: PoolView, **view: object) -> Snapshot:
    one = replace(child(task_id="t"), processes=(replace(child().processes[0], parent=10),))
    return snapshot(one, pools=(slow_view(**({"main": MAIN, "vitals": vitals} | view)), *others))


def ailing(look: Snapshot, seconds: float = 60.0, step: float = 1.0) -> Mapping[str, Unhealthy]:
    """What is wrong after `look` was had again and again, `step` seconds apart, for so long."""
    ailments: dict[str, Unhealthy] = {}
    for number in range(int(seconds / step) + 1):
        ailments = update_worker_health(ailments, replace(look, at=AT + number * step), SETTINGS)
    return ailments


def mended(look: Snapshot, seconds: float = 60.0, **past: object) -> KillWorker | ReplaceWorker | None:
    ailments = ailing(look, seconds)
    return restart_unhealthy(look, policy_state(unhealthy=ailments, **past), SETTINGS)


def test_a_main_process_that_hangs_is_killed_with_its_tree_and_itself_first() -> None:
    found = mended(seen(SILENT, state=PoolState.NOT_ANSWERING))
    assert isinstance(found, KillWorker)
    assert [each.pid for each in found.processes] == [10, CHILD.pid]
    assert found.reason == (
        "its main process 10 has not answered for 45 s, no thread of it gives a sign of life; "
        "1 task of it will run again"
    )


def test_a_worker_that_takes_nothing_while_tasks_wait_is_replaced() -> None:
    found = mended(seen(STARVING))
    assert isinstance(found, ReplaceWorker)
    assert found.reason == "it could take a task and took none for 60 s, while 3 wait in low"


def test_hanging_and_taking_nothing_are_noticed_within_a_minute_and_not_at_once() -> None:
    hanging, starving = seen(SILENT, state=PoolState.NOT_ANSWERING), seen(STARVING)
    assert mended(hanging, HANG_SECONDS - 1) is None
    assert mended(starving, STARVE_SECONDS - 1) is None
    # Ten seconds pass before one is said not to answer.
    assert mended(hanging, 49) is not None
    assert mended(starving, 59) is not None


@pytest.mark.parametrize(
    ("vitals", "view"),
    [
        pytest.param(LIVELY, {}, id="nothing waits"),
        pytest.param(replace(STARVING, has_room=False), {}, id="it has all it may run"),
        pytest.param(replace(STARVING, waiting=None), {}, id="nobody knows what waits"),
        pytest.param(replace(STARVING, consumes=frozenset(), waiting=0), {}, id="its queue was cancelled"),
        pytest.param(STARVING, {"holding": True}, id="it is on hold"),
        pytest.param(STARVING, {"state": PoolState.DRAINING}, id="it drains"),
        pytest.param(
            replace(SILENT, stopping=True), {"state": PoolState.NOT_ANSWERING}, id="it was told to end"
        ),
        pytest.param(SILENT, {"state": PoolState.WAITING_FOR_BROKER}, id="it waits for its broker"),
        pytest.param(AWAY, {"state": PoolState.NOT_ANSWERING}, id="its broker is away"),
        pytest.param(None, {"state": PoolState.NOT_ANSWERING}, id="it has not said anything yet"),
        pytest.param(SILENT, NOT_ANSWERING | {"main": replace(MAIN, state="t")}, id="a debugger"),
        pytest.param(SILENT, {"state": PoolState.NOT_ANSWERING, "main": None}, id="it is gone"),
    ],
)
def test_a_worker_is_left_alone_when(vitals: Vitals | None, view: dict[str, object]) -> None:
    assert mended(seen(vitals, **view)) is None


def test_nothing_is_ended_while_any_worker_finds_its_broker_away() -> None:
    other = PoolView(name="fast", state=PoolState.RUNNING, pid=11, vitals=AWAY)
    assert mended(seen(SILENT, other, state=PoolState.NOT_ANSWERING)) is None
    assert mended(seen(STARVING, other)) is None


def test_a_worker_gets_all_its_time_again_when_its_broker_is_back() -> None:
    before = ailing(seen(SILENT, state=PoolState.NOT_ANSWERING))
    away = update_worker_health(before, seen(AWAY, state=PoolState.NOT_ANSWERING), SETTINGS)
    assert away == {}


def test_a_worker_that_took_a_message_has_all_its_time_again() -> None:
    before = ailing(seen(STARVING))
    after = update_worker_health(before, replace(seen(replace(STARVING, received=1)), at=AT + 61), SETTINGS)
    assert after["slow"].seconds == 0


def test_a_restarted_worker_is_not_blamed_for_the_one_before() -> None:
    before = ailing(seen(STARVING))
    after = update_worker_health(before, replace(seen(replace(STARVING, pid=11)), at=AT + 61), SETTINGS)
    assert after["slow"].seconds == 0


def test_time_in_which_nobody_looked_does_not_count() -> None:
    assert ailing(seen(STARVING), 600, step=300)["slow"].seconds <= 6
    assert ailing(replace(seen(STARVING), late_seconds=5.0))["slow"].seconds == 0


def test_a_pool_whose_tasks_run_in_its_main_process_is_not_killed_for_being_busy() -> None:
    threads = settings_with(implementation="threads")
    ailments = update_worker_health({}, seen(SILENT, state=PoolState.NOT_ANSWERING), threads)
    assert ailments == {}


def test_an_action_that_did_not_help_is_tried_again_ever_later() -> None:
    once = policy_state().with_restart("slow", AT - 50)
    assert mended(seen(STARVING), restart_backoffs=once.restart_backoffs) is None
    first = replace(once.restart_backoffs["slow"], at=AT - 61)
    assert mended(seen(STARVING), restart_backoffs={"slow": first}) is not None
    twice = policy_state(restart_backoffs={"slow": first}).with_restart("slow", AT - 61)
    assert mended(seen(STARVING), restart_backoffs=twice.restart_backoffs) is None
    assert RestartBackoff(0, 20).pause_seconds == 3600
    assert twice.with_restart("slow", AT + 10_000).restart_backoffs["slow"].times == 1


def test_a_worker_that_was_just_replaced_for_another_reason_is_not_replaced_again() -> None:
    assert mended(seen(STARVING), replaced={"slow": AT - 30}) is None


def test_a_task_far_past_its_hard_limit_is_ended_and_not_asked_for_twice_at_once() -> None:
    late = seen(replace(LIVELY, overdue={CHILD.pid: 12.0}))
    (found,) = end_overdue(late, policy_state())
    assert found.owner == CHILD
    assert list(end_overdue(late, policy_state(timed_out={CHILD: AT - 5}))) == []
    assert list(end_overdue(late, policy_state(timed_out={CHILD: AT - 15}))) == [found]


def test_a_task_just_past_its_hard_limit_is_left_to_its_pool() -> None:
    assert list(end_overdue(seen(replace(LIVELY, overdue={CHILD.pid: 3.0})), policy_state())) == []


@pytest.mark.parametrize(
    ("main_state", "vitals", "words"),
    [
        ("T", SILENT, "and is stopped (SIGSTOP)"),
        ("S", replace(SILENT, last_heartbeat=AT, broker_answers=True), "stands still, and its broker answers"),
        ("S", replace(SILENT, last_heartbeat=AT), "another thread of it lives: its event loop stands still;"),
    ],
)
def test_the_log_says_how_far_a_main_process_hangs(main_state: str, vitals: Vitals, words: str) -> None:
    main = replace(MAIN, state=main_state)
    found = mended(seen(vitals, state=PoolState.NOT_ANSWERING, main=main))
    assert isinstance(found, KillWorker)
    assert words in found.reason
