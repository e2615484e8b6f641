"""What is kept of replacements that are asked for and under way, and what an operator is told of them."""

from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import AbortRollout, Outcome, ReplaceWorker, StopOld
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.replace import SUCCESSOR_SEEN_SECONDS, update_successors
from recyclery.governor.commands import recycle_status, replacement_refusal
from recyclery.observe.snapshot import PoolView, Snapshot
from recyclery.state.ledger import Ledger
from support.snapshots import AT, SETTINGS, child, policy_state, slow_view, snapshot

DONE = Outcome(done=True, line="done")
NOT_DONE = Outcome(done=False, line="not done")
REPLACE = ReplaceWorker(pool="slow", reason="asked to", slot="slow", successor="slow-b")
LEAVE = StopOld(pool="slow", slot="slow", successor="slow-b", reason="it takes tasks")


def successor(**rest: object) -> PoolView:
    return slow_view(**({"slot": "slow-b", "pid": 11, "state": PoolState.STARTING, "started": AT} | rest))


def look(*others: PoolView, at: float = AT, serving: PoolView | None = None) -> Snapshot:
    found = snapshot(child(task_id="a", task_name="nap"), pools=(serving or slow_view(),), others=others)
    return replace(found, at=at)


def begun() -> PolicyState:
    ledger = Ledger(SETTINGS)
    ledger.ask_replacement("slow")
    ledger.record(REPLACE, DONE, AT)
    return ledger.state


def test_a_successor_that_went_before_it_took_over_is_told_with_how_it_ended() -> None:
    state, lines = update_successors(begun(), look(successor()))
    assert lines == []
    gone = replace(
        look(at=AT + 1), empty_slots=(successor(pid=None, state=PoolState.STOPPED, end="ended with status 2"),)
    )
    state, (line,) = update_successors(state, gone)
    assert line == (
        "slow-b was to take over slow and did not stay up: it ended with status 2; the old one goes on"
    )
    assert (state.failed_rollouts, state.failures, state.is_being_replaced("slow")) == (
        {"slow": AT + 1},
        {"slow": line},
        False,
    )


def test_a_successor_that_was_not_seen_yet_is_waited_for_but_not_for_ever() -> None:
    state, lines = update_successors(begun(), look(at=AT + SUCCESSOR_SEEN_SECONDS))
    assert lines == []
    assert len(update_successors(state, look(at=AT + SUCCESSOR_SEEN_SECONDS + 1))[1]) == 1


def test_a_successor_that_is_all_there_is_left_has_taken_over() -> None:
    state, lines = update_successors(begun(), look(serving=successor(state=PoolState.RUNNING)))
    assert lines == []
    assert (state.is_being_replaced("slow"), state.failures) == (False, {})


def test_a_replacement_counts_when_the_old_one_leaves_and_not_when_its_successor_starts() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(REPLACE, DONE, AT)
    assert ledger.state.counters.recycles == {}
    ledger.record(LEAVE, NOT_DONE, AT)
    assert ledger.state.counters.recycles == {}
    ledger.record(LEAVE, DONE, AT)
    assert ledger.state.counters.recycles["slow"] == {"replace": 1}


def test_one_that_was_given_up_is_told_as_the_reason() -> None:
    given_up = Outcome(done=True, line="given up")
    state = AbortRollout(pool="slow", slot="slow-b", reason="").after(begun(), given_up, AT + 1)
    told = recycle_status("slow", look(), state)
    assert told is not None
    assert (told.going_on, told.failure) == (False, "given up")


def test_a_new_request_forgets_the_last_failure() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(REPLACE, DONE, AT)
    ledger.record(AbortRollout(pool="slow", slot="slow-b", reason=""), DONE, AT + 1)
    ledger.ask_replacement("slow")
    told = recycle_status("slow", look(), ledger.state)
    assert told is not None
    assert (told.going_on, told.failure, told.waits_for) == (True, "", "for its turn")


def test_a_second_request_is_refused_with_what_the_first_one_waits_for() -> None:
    assert replacement_refusal("slow", look(), policy_state()) is None
    assert replacement_refusal("slow", look(successor()), begun()) == (
        "slow is being replaced already: slow-b (pid 11) starts, and slow takes tasks until that does"
    )
    # A governor that came meanwhile has not heard of the first.
    assert replacement_refusal("slow", look(successor()), policy_state()) is not None


def test_while_the_former_worker_drains_a_request_is_refused_with_its_tasks() -> None:
    former, serving = slow_view(state=PoolState.DRAINING), successor(state=PoolState.RUNNING)
    assert replacement_refusal("slow", look(former, serving=serving), policy_state()) == (
        "slow was replaced just now, and its former worker still drains 1 task: nap"
    )
    assert replacement_refusal("slow", look(serving=slow_view(state=PoolState.DRAINING)), policy_state()) == (
        "slow is being replaced already: it drains 1 task: nap"
    )


def test_a_pool_that_is_not_there_or_not_up_cannot_be_replaced() -> None:
    assert replacement_refusal("slim", look(), policy_state()) == "'slim' is no pool: there are slow"
    assert "slow is backoff" in str(
        replacement_refusal("slow", look(serving=slow_view(state=PoolState.BACKOFF, pid=None)), policy_state())
    )


def test_a_finished_replacement_names_who_takes_tasks_and_what_is_left() -> None:
    former, serving = (
        slow_view(state=PoolState.DRAINING),
        successor(state=PoolState.RUNNING, node="slow-b@here"),
    )
    told = recycle_status("slow", look(former, serving=serving), policy_state())
    assert told is not None
    assert told.waits_for == "slow-b@here (pid 11) takes tasks; slow drains 1 task: nap"
    assert not told.going_on
