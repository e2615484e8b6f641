"""A task past its own memory limit: when it is told to end, when it fails, and that nobody else pays."""

import dataclasses
from typing import Any

from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import FailTask, InterruptTask, Outcome, PreemptChild, Warn
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.task_limit import FAIL_AGAIN_SECONDS, GRACE_SECONDS
from recyclery.observe.snapshot import Child, Owner, Snapshot
from support.snapshots import (
    ANSWERED,
    AT,
    CHILD,
    LEARNED,
    MIB,
    SETTINGS,
    child,
    policy_state,
    settings_with,
    slow_view,
    snapshot,
)

LIMITED = settings_with(max_task_bytes={"shop.report": 400 * MIB, "*": 100 * MIB})
NEIGHBOUR = Owner("slow", 21, 2100)
DONE = Outcome(done=True, line="done")
PAST = "shop.scrape has taken 300 MiB, with all that it started, and may take 100 MiB (max_task_bytes of slow)"


def busy(task_mib: int, name: str = "shop.scrape", task_id: str = "a", **rest: Any) -> Child:
    return child(mib=60 + task_mib, task_id=task_id, task_name=name, task_bytes=task_mib * MIB, **rest)


def seen(*children: Child, floor_mib: int = 400, at: float = AT, **view: object) -> Snapshot:
    shot = snapshot(*children, floor_mib=floor_mib, pools=(slow_view(concurrency=2, **view),))
    return dataclasses.replace(shot, at=at)


def limits(shot: Snapshot, state: PolicyState | None = None) -> list[InterruptTask | FailTask]:
    actions = decide(shot, state or policy_state(), LIMITED)
    return [action for action in actions if isinstance(action, InterruptTask | FailTask)]


def after(action: InterruptTask | FailTask, outcome: Outcome = DONE) -> PolicyState:
    return action.after(policy_state(), outcome, AT)


def test_a_task_past_its_limit_is_told_to_end_once() -> None:
    shot = seen(busy(300), busy(90, owner=NEIGHBOUR))
    told = InterruptTask(CHILD, "slow", "a", PAST)
    assert limits(shot) == [told]
    assert limits(shot, after(told)) == []


def test_the_limit_is_that_of_the_tasks_name() -> None:
    assert limits(seen(busy(300, "shop.report"))) == []
    (told,) = limits(seen(busy(500, "shop.report")))
    assert told.reason.endswith("may take 400 MiB (max_task_bytes of slow)")


def test_a_task_that_has_not_ended_after_its_grace_fails_even_if_it_has_shrunk() -> None:
    state = after(InterruptTask(CHILD, "slow", "a", PAST))
    assert limits(seen(busy(0), at=AT + GRACE_SECONDS - 0.1), state) == []
    failed = FailTask(CHILD, "slow", "a", PAST)
    assert limits(seen(busy(0), at=AT + GRACE_SECONDS), state) == [failed]
    asked = failed.after(state, DONE, AT + GRACE_SECONDS)
    assert limits(seen(busy(0), at=AT + 2 * GRACE_SECONDS), asked) == []
    assert limits(seen(busy(0), at=AT + GRACE_SECONDS + FAIL_AGAIN_SECONDS), asked) == [failed]


def test_a_retry_of_the_same_id_is_not_ended_for_the_run_before() -> None:
    state = after(InterruptTask(CHILD, "slow", "a", PAST))
    retry = busy(0, task_started=AT + 30)
    assert limits(seen(retry, at=AT + 60), state) == []
    (told,) = limits(seen(busy(300, task_started=AT + 30), at=AT + 60), state)
    assert isinstance(told, InterruptTask)


def test_a_task_that_was_not_told_is_ended_only_while_it_is_past_its_limit() -> None:
    refused = Outcome(done=False, line="no answer")
    state = after(InterruptTask(CHILD, "slow", "a", PAST), refused)
    assert limits(seen(busy(0), at=AT + GRACE_SECONDS), state) == []
    assert limits(seen(busy(300), at=AT + GRACE_SECONDS), state) == [FailTask(CHILD, "slow", "a", PAST)]


def test_a_task_whose_limit_was_taken_away_is_not_ended() -> None:
    state = after(InterruptTask(CHILD, "slow", "a", PAST))
    shot = seen(busy(0), at=AT + GRACE_SECONDS)
    assert [action for action in decide(shot, state, SETTINGS) if isinstance(action, FailTask)] == []


def test_the_next_task_of_the_child_is_not_ended_for_the_one_before() -> None:
    state = after(InterruptTask(CHILD, "slow", "a", PAST))
    assert limits(seen(busy(0, task_id="b"), at=AT + 60), state) == []
    assert limits(seen(child(), at=AT + 60), state) == []
    (told,) = limits(seen(busy(300, task_id="b"), at=AT + 60), state)
    assert isinstance(told, InterruptTask)


def test_where_memory_ends_the_task_past_its_limit_fails_at_once_and_no_larger_child_is_preempted() -> None:
    shot = seen(busy(300), larger(), floor_mib=960)
    actions = decide(shot, policy_state(), LIMITED)
    assert FailTask(CHILD, "slow", "a", PAST) in actions
    assert not any(isinstance(action, PreemptChild) for action in actions)
    failed = after(FailTask(CHILD, "slow", "a", PAST))
    soon = decide(dataclasses.replace(shot, at=AT + 0.05), failed, LIMITED)
    assert not any(isinstance(action, PreemptChild) for action in soon)


def test_where_the_worker_does_not_answer_memory_is_had_by_preempting_as_ever() -> None:
    failed = after(FailTask(CHILD, "slow", "a", PAST), Outcome(done=False, line="no answer"))
    actions = decide(seen(busy(300), larger(), floor_mib=960), failed, LIMITED)
    assert any(isinstance(action, PreemptChild) for action in actions)


def test_a_child_of_a_draining_worker_is_ended_by_that_worker() -> None:
    old = slow_view(slot="slow-b", pid=11, state=PoolState.DRAINING)
    shot = dataclasses.replace(seen(busy(300, slot="slow-b")), others=(old,))
    assert limits(shot) == [InterruptTask(CHILD, "slow-b", "a", PAST)]


def test_a_worker_that_cannot_end_a_task_is_warned_of_and_not_asked() -> None:
    shot = seen(busy(300), retires=False, vitals=ANSWERED)
    assert limits(shot) == []
    warnings = [action for action in decide(shot, policy_state(), LIMITED) if isinstance(action, Warn)]
    assert [warning.text for warning in warnings] == [
        "max_task_bytes of slow has no effect: this worker cannot end a single task"
    ]


def test_without_the_setting_no_task_has_a_limit() -> None:
    state, settings = policy_state(), structs.replace(LIMITED, pools=settings_with().pools)
    assert not any(isinstance(action, InterruptTask) for action in decide(seen(busy(900)), state, settings))


def larger() -> Child:
    """A child that holds more, and whose task has a higher limit."""
    return child(mib=700, owner=NEIGHBOUR, task_id="b", task_name="shop.report")


def test_what_was_learned_of_tasks_past_a_limit_reserves_no_memory_for_the_next() -> None:
    learned = LEARNED.headroom_bytes("slow")
    assert learned >= 300 * MIB
    assert dataclasses.replace(LEARNED, task_limits={"slow": 100 * MIB}).headroom_bytes("slow") == 100 * MIB
    assert dataclasses.replace(LEARNED, task_limits={"slow": 900 * MIB}).headroom_bytes("slow") == learned


def test_a_pool_has_a_highest_limit_only_where_each_task_has_one() -> None:
    slow = LIMITED.pools[1]
    assert slow.most_task_bytes == 400 * MIB
    assert structs.replace(slow, max_task_bytes={"shop.report": 400 * MIB}).most_task_bytes is None
    assert structs.replace(slow, max_task_bytes=None).most_task_bytes is None
