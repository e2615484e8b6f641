"""What each action is called in the log, what is asked of whom, and what it changes in the state."""

import typing
from typing import Any

import pytest

from recyclery.decide.actions import (
    AbortRollout,
    Action,
    ChangeConcurrency,
    ChangeMaxTasks,
    EndGridSession,
    EnforceTimeLimit,
    FailTask,
    InterruptTask,
    KillForeign,
    KillWorker,
    Outcome,
    PauseConsuming,
    PreemptChild,
    ReapProcesses,
    ReapZombies,
    ReclaimMessages,
    RemoveFiles,
    ReplaceWorker,
    ReportDeath,
    RetireChild,
    RetireTraced,
    StopOld,
    SupervisordRequest,
    Warn,
    WorkerRequest,
)
from recyclery.decide.policy_state import Successor
from recyclery_worker import link
from support.snapshots import AT, CHILD, policy_state

DONE = Outcome(done=True, line="done")
NOT_DONE = Outcome(done=False, line="not done")
FELL = link.DeathReport(pid=20, task_id="a", tree_bytes=300 << 20, how="")
LINES: list[tuple[Any, str]] = [
    (ReapProcesses((), "why", "orphans", CHILD), "reap orphans of slow/20"),
    (KillForeign((), "why"), "reap strangers"),
    (PreemptChild((), "why", CHILD), "preempt slow/20"),
    (KillWorker((), "why", "slow"), "give up on slow"),
    (RemoveFiles(()), "clean up"),
    (EndGridSession(CHILD, "s1"), "end Grid session s1 of slow/20, which is dead"),
    (ReapZombies(CHILD, "why"), "collect in slow/20: why"),
    (Warn("tight", "it is tight"), "it is tight"),
    (ReportDeath("fast", FELL), "note that 20 died with 300 MiB amid task a; fast takes it down"),
    (ReclaimMessages("slow", "g", "fast", "why"), "reclaim what slow held: why; fast gives it back"),
    (RetireChild(CHILD, "why"), "retire slow/20: why; it leaves as soon as it has no task"),
    (RetireTraced(CHILD, "slow", "why"), "dismiss slow/20: why; it leaves as soon as it has no task"),
    (EnforceTimeLimit(CHILD, "why"), "time out slow/20: why; it is ended"),
    (
        InterruptTask(CHILD, "slow", "a", "why"),
        "tell a in slow/20 to end: why; TaskMemoryLimitExceeded is raised in it",
    ),
    (
        FailTask(CHILD, "slow", "a", "why"),
        "end a with slow/20: why; it has failed, and its child is killed",
    ),
    (ChangeMaxTasks("slow", 5, "why"), "tune slow to 5 tasks per child: why; in force"),
    (ChangeConcurrency("slow", 2, "why"), "scale slow to 2 at a time: why; in force"),
    (PauseConsuming("slow", True, False, "why"), "hold slow: why; it takes no more tasks"),
    (PauseConsuming("slow", False, False, "why"), "let go slow: why; it takes tasks again"),
    (
        ReplaceWorker("slow", "why", "slow"),
        "replace slow: why; it stops after its running tasks, and starts anew",
    ),
    (
        ReplaceWorker("slow", "why", "slow", "slow-b"),
        "replace slow: why; slow-b starts, and slow takes tasks until that does",
    ),
    (
        StopOld("slow", "why", "slow", "slow-b"),
        "hand slow over from slow to slow-b: why; slow finishes the tasks that it has, and leaves",
    ),
    (
        AbortRollout("slow", "why", "slow-b"),
        "give up slow-b, which was to take over slow: why; the worker that there is goes on",
    ),
]


@pytest.mark.parametrize(("action", "line"), LINES)
def test_the_log_says_what_is_done_why_and_what_follows(action: Action, line: str) -> None:
    words = (
        [action.summary, action.result]
        if isinstance(action, WorkerRequest | SupervisordRequest)
        else [action.summary]
    )
    assert "; ".join(words) == line


def test_every_action_has_its_words_and_a_kind_of_its_own() -> None:
    assert {type(action) for action, _ in LINES} == set(typing.get_args(Action))
    assert len({action.kind for action in typing.get_args(Action)}) == len(typing.get_args(Action))


SLOTS = {"slow": "slow-b"}


@pytest.mark.parametrize(
    ("action", "slot", "request_"),
    [
        (RetireChild(CHILD, ""), "slow-b", link.RetireRequest(pid=20)),
        (EnforceTimeLimit(CHILD, ""), "slow-b", link.TimeLimitRequest(pid=20)),
        (InterruptTask(CHILD, "slow", "a", "why"), "slow", link.InterruptTaskRequest(20, "a", "why")),
        (FailTask(CHILD, "slow", "a", "why"), "slow", link.FailTaskRequest(20, "a", "why")),
        (RetireTraced(CHILD, "slow", ""), "slow", link.RetireRequest(pid=20)),
        (ChangeMaxTasks("slow", 5, ""), "slow-b", link.SetMaxTasksRequest(max_tasks=5)),
        (ChangeConcurrency("slow", 2, ""), "slow-b", link.SetConcurrencyRequest(concurrency=2)),
        (PauseConsuming("slow", True, False, ""), "slow-b", link.PauseRequest(seconds=15)),
        (PauseConsuming("slow", False, False, ""), "slow-b", link.PauseRequest(seconds=0)),
        (ReclaimMessages("slow", "g", "fast", ""), "fast", link.ReclaimRequest(generation="g")),
        (ReportDeath("fast", FELL), "fast", FELL),
    ],
)
def test_a_worker_is_asked_in_the_slot_in_which_it_runs(
    action: WorkerRequest, slot: str, request_: link.Request
) -> None:
    assert action.request(SLOTS) == (slot, request_)


@pytest.mark.parametrize(
    ("action", "call"),
    [
        (ReplaceWorker("slow", "", "slow"), ("recyclery.renew", "slow")),
        (ReplaceWorker("slow", "", "slow", "slow-b"), ("supervisor.startProcess", "slow-b", False)),
        (StopOld("slow", "", "slow", "slow-b"), ("recyclery.leave", "slow")),
        (AbortRollout("slow", "", "slow-b"), ("supervisor.stopProcess", "slow-b", False)),
    ],
)
def test_pid_1_is_asked_for_each_step_of_a_replacement(
    action: SupervisordRequest, call: tuple[str | bool, ...]
) -> None:
    assert action.call() == call


def test_a_replacement_is_under_way_until_the_old_worker_was_asked_to_leave() -> None:
    state = ReplaceWorker("slow", "", "slow", "slow-b").after(policy_state(asked={"slow": ""}), DONE, AT)
    assert (state.asked, state.successors) == ({}, {"slow": Successor("slow-b", AT)})
    leave = StopOld("slow", "", "slow", "slow-b")
    assert leave.after(state, NOT_DONE, AT).is_being_replaced("slow")
    assert not leave.after(state, DONE, AT).is_being_replaced("slow")


def test_a_replacement_that_was_not_done_has_failed_with_its_line() -> None:
    state = ReplaceWorker("slow", "", "slow", "slow-b").after(policy_state(asked={"slow": ""}), NOT_DONE, AT)
    assert (state.failures, state.failed_rollouts) == ({"slow": "not done"}, {"slow": AT})
    assert not state.is_being_replaced("slow")


def test_a_kill_that_raised_counts_no_victim_and_no_recycle() -> None:
    raised = Outcome(done=False, line="failed", raised=True)
    state = policy_state()
    preempted = PreemptChild(owner=CHILD, processes=(), reason="").after(state, raised, AT)
    assert (preempted.preempted, preempted.preempted_children) == (AT, frozenset())
    killed = KillWorker(pool="slow", processes=(), reason="").after(state, raised, AT)
    assert killed.counters.recycles == {}
