"""What the governor keeps of its actions, and what it says of what came of them."""

from dataclasses import replace

import pytest
from msgspec import structs

from recyclery.common.pool_state import PoolState
from recyclery.decide.actions import (
    Action,
    ChangeConcurrency,
    ChangeMaxTasks,
    EndGridSession,
    FailTask,
    InterruptTask,
    KillForeign,
    Outcome,
    PauseConsuming,
    PreemptChild,
    ReapProcesses,
    ReplaceWorker,
    RetireChild,
    Warn,
)
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import WARN_AGAIN_SECONDS
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.state.ledger import Ledger
from recyclery_worker.link import Departure, WorkerStat
from support.snapshots import AT, CHILD, MIB, SETTINGS, child, process, settings_with, slow_view, snapshot

DONE = Outcome(done=True, line="done")
REFUSED = Outcome(done=False, refused=True, line="refused")
RETIRE = RetireChild(owner=CHILD, reason="too large")


def stat(*departures: Departure, sent: float) -> dict[str, WorkerStat]:
    told = WorkerStat(
        pool="slow",
        pid=10,
        node="slow@here",
        concurrency=1,
        max_tasks_per_child=10,
        retires=True,
        lack="",
        children=[],
        departures=list(departures),
        sent=sent,
    )
    return {"slow": told}


def look(*, alive: bool, at: float) -> Snapshot:
    return replace(snapshot(*([child(mib=300)] if alive else []), pools=(slow_view(),)), at=at)


def test_strangers_browsers_that_were_killed_count_as_reaped_and_sessions_only_when_ended() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(KillForeign(processes=(process(80, session=80),), reason="asked"), DONE, AT)
    ledger.record(EndGridSession(CHILD, "a1"), DONE, AT)
    ledger.record(EndGridSession(CHILD, "b2"), REFUSED, AT)
    assert (ledger.state.counters.reaped, ledger.state.counters.grid_ended) == (1, 1)


def test_strangers_of_the_last_look_are_known_to_the_next() -> None:
    ledger = Ledger(SETTINGS)
    stranger = process(80, session=80)
    seen = replace(snapshot(child()), foreign_browsers=(stranger,))
    assert ledger.state.known_foreign == frozenset()
    ledger.end(seen, ledger.state)
    assert ledger.state.known_foreign == {stranger.key}


def leave(ledger: Ledger, *departures: Departure) -> list[str]:
    """Have the child seen, then gone, its worker having said why; return what is said."""
    for seen, sent in ((look(alive=True, at=AT + 1), AT + 1), (look(alive=False, at=AT + 2), AT + 3)):
        lines = ledger.begin(seen, stat(*departures, sent=sent), {}, SETTINGS)
        ledger.end(seen, ledger.state)
    return lines


def test_a_retired_child_that_has_left_is_told_with_what_came_back() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(RETIRE, DONE, AT)
    assert leave(ledger) == ["retired slow/20 has left, 2.0 s after it was asked to: 300 MiB came back"]
    assert ledger.state.counters.recycles["slow"] == {"budget": 1}


def test_a_child_that_died_by_itself_is_told() -> None:
    ledger = Ledger(SETTINGS)
    assert leave(ledger) == ["slow/20 exited unexpectedly (300 MiB)"]


@pytest.mark.parametrize("state", [PoolState.STOPPING, PoolState.DRAINING])
def test_children_that_go_with_their_worker_are_not_counted(state: PoolState) -> None:
    ledger = Ledger(SETTINGS)
    before = look(alive=True, at=AT + 1)
    after = replace(look(alive=False, at=AT + 2), pools=(slow_view(state=state),))
    for seen in (before, after, replace(after, at=AT + 20)):
        assert ledger.begin(seen, {}, {}, SETTINGS) == []
        ledger.end(seen, ledger.state)
    assert ledger.state.counters.recycles == {}


def test_a_child_that_reached_its_limit_is_counted_and_not_worth_a_line() -> None:
    ledger = Ledger(SETTINGS)
    assert leave(ledger, Departure(pid=20, reason="max_tasks")) == []
    assert ledger.state.counters.recycles["slow"] == {"max_tasks": 1}
    assert ledger.state.clean_lifetimes == {"slow": 1}


def test_a_new_limit_begins_the_count_of_clean_lifetimes_anew() -> None:
    ledger = Ledger(SETTINGS)
    leave(ledger, Departure(pid=20, reason="max_tasks"))
    ledger.record(ChangeMaxTasks(pool="slow", max_tasks=5, reason=""), DONE, AT)
    assert ledger.state.clean_lifetimes == {"slow": 0}


def test_a_change_of_the_settings_is_heeded_by_one_decision_while_the_worker_runs() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record_changed({"slow"})
    silent = replace(look(alive=True, at=AT), pools=(slow_view(state=PoolState.NOT_ANSWERING),))
    ledger.end(silent, ledger.state)
    assert ledger.state.changed == {"slow"}
    decided = ledger.state
    ledger.record_changed({"fast"})  # Told of while the decision was being carried out.
    ledger.end(look(alive=True, at=AT), decided)
    assert ledger.state.changed == {"fast"}


def test_retirements_that_are_not_carried_out_are_counted_until_one_is() -> None:
    ledger = Ledger(SETTINGS)
    for _ in range(3):
        ledger.record(RETIRE, REFUSED, AT)
    assert ledger.state.refused == {"slow": 3}
    ledger.record(RETIRE, DONE, AT)
    assert ledger.state.refused == {}


def test_a_worker_that_does_not_answer_has_not_refused_and_is_asked_again_later() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(RETIRE, Outcome(done=False, line="no answer"), AT)
    state = ledger.state
    assert (state.refused, state.retired) == ({}, {CHILD: AT})


def test_what_was_done_when_is_known_to_the_next_decision() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(ReplaceWorker(pool="slow", reason=""), DONE, AT)
    ledger.record(PreemptChild(owner=CHILD, processes=(), reason=""), DONE, AT + 1)
    ledger.record(ChangeConcurrency(pool="fast", concurrency=2, reason=""), DONE, AT + 2)
    state = ledger.state
    assert (state.replaced, state.preempted, state.scaled) == ({"slow": AT}, AT + 1, {"fast": AT + 2})
    assert ledger.state.counters.recycles["slow"] == {"replace": 1}


def test_a_kill_by_the_kernel_is_told() -> None:
    ledger = Ledger(SETTINGS)
    before, after = look(alive=True, at=AT + 1), look(alive=True, at=AT + 2)
    after = replace(after, container=replace(after.container, oom_kills=2))
    assert ledger.begin(before, {}, {}, SETTINGS) == []
    ledger.end(before, ledger.state)
    (line,) = ledger.begin(after, {}, {}, SETTINGS)
    assert line.startswith("the kernel killed 2 processes for want of memory, 2 so far")


def test_a_notice_is_news_once_in_ten_minutes() -> None:
    ledger = Ledger(SETTINGS)

    def notices(at: float) -> list[Action]:
        seen = replace(snapshot(child()), foreign_browsers=(process(80, session=80),), at=at)
        ledger.begin(seen, {}, {}, SETTINGS)
        return [action for action in decide(seen, ledger.state, SETTINGS) if isinstance(action, Warn)]

    (notice,) = notices(AT)
    ledger.record(notice, DONE, AT)
    assert notices(AT + WARN_AGAIN_SECONDS - 1) == []
    assert notices(AT + WARN_AGAIN_SECONDS) == [notice]


def test_a_hold_that_only_goes_on_is_no_news() -> None:
    assert not PauseConsuming(pool="slow", on=True, renewed=False, reason="").is_routine
    assert PauseConsuming(pool="slow", on=True, renewed=True, reason="").is_routine


def test_the_risk_in_the_settings_is_what_the_next_task_is_judged_by() -> None:
    models = {"slow": PoolModel(tails=tuple(range(100 * MIB, 300 * MIB, 2 * MIB)))}
    tails = []
    for percent in (50.0, 0.1):
        settings = structs.replace(SETTINGS, memory=structs.replace(SETTINGS.memory, risk_percent=percent))
        ledger = Ledger(SETTINGS)
        ledger.begin(snapshot(), {}, models, settings)
        tails.append(ledger.state.headroom_bytes("slow"))
    bold, careful = tails
    assert bold < careful


def test_a_state_is_never_changed_once_it_was_handed_out() -> None:
    ledger = Ledger(SETTINGS)
    ledger.record(RETIRE, REFUSED, AT)
    before = ledger.state
    told = replace(before)
    ledger.record(RETIRE, DONE, AT)
    ledger.ask_replacement("slow")
    leave(ledger)
    assert before == told


def test_a_browser_that_took_a_second_kill_is_counted_once() -> None:
    browser = (process(30, name="chromedriver"), process(31, parent=30))
    ledger = Ledger(SETTINGS)
    for processes in (browser, browser[1:]):
        ledger.record(ReapProcesses(processes, "", "leftovers", CHILD), DONE, AT)
    assert ledger.state.counters.reaped == 1


def test_a_gone_child_is_counted_by_what_ended_it() -> None:
    ledger = Ledger(SETTINGS)
    owners = [CHILD, *(Owner("slow", pid, 1) for pid in (21, 22, 23))]
    ledger.record(PreemptChild(owner=owners[0], processes=(), reason=""), DONE, AT)
    ledger.record(RetireChild(owner=owners[1], reason=""), DONE, AT)
    before = snapshot(*(child(owner=owner) for owner in owners), pools=(slow_view(),))
    told = stat(Departure(pid=21, reason="asked"), Departure(pid=22, reason="max_tasks"), sent=AT + 2)
    for seen in (before, replace(before, children=(), at=AT + 1)):
        ledger.begin(seen, told, {}, SETTINGS)
        ledger.end(seen, ledger.state)
    assert ledger.state.counters.recycles["slow"] == {"preempt": 1, "budget": 1, "max_tasks": 1, "died": 1}


def test_the_ledger_takes_the_limits_of_tasks_from_the_settings_and_forgets_the_dead() -> None:
    ledger = Ledger(SETTINGS)
    for action in (InterruptTask(CHILD, "slow", "a", "why"), FailTask(CHILD, "slow", "a", "why")):
        ledger.record(action, REFUSED, AT)
    ledger.begin(look(alive=True, at=AT + 1), {}, {}, settings_with(max_task_bytes={"*": 100 * MIB}))
    assert ledger.state.task_limits == {"slow": 100 * MIB}
    assert ledger.state.interrupted[CHILD].task_id == "a"
    assert ledger.state.failed_tasks == {CHILD: AT}
    ledger.begin(look(alive=False, at=AT + 2), {}, {}, SETTINGS)
    assert (ledger.state.task_limits, ledger.state.interrupted, ledger.state.failed_tasks) == ({}, {}, {})
