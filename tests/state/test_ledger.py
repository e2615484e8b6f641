"""What the governor keeps of its actions, and what it says of what came of them."""

from dataclasses import replace

import pytest

from recyclery.act.outcome import Outcome
from recyclery.decide.actions import EndSession, Evict, Hold, Notice, Preempt, Replace, Retire, Scale, Tune
from recyclery.decide.memory_model import PoolModel
from recyclery.observe.snapshot import Snapshot
from recyclery.state.ledger import SAY_AGAIN_SECONDS, Ledger
from recyclery_worker.link import Departure, WorkerStat
from support.snapshots import AT, CHILD, MIB, SETTINGS, child, process, slow_view, snapshot

DONE = Outcome(done=True, line="done")
REFUSED = Outcome(done=False, refused=True, line="refused")
RETIRE = Retire(owner=CHILD, reason="too large")


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
    ledger = Ledger()
    ledger.note(Evict(processes=(process(80, session=80),), reason="asked"), DONE, AT)
    ledger.note(EndSession(CHILD, "a1"), DONE, AT)
    ledger.note(EndSession(CHILD, "b2"), REFUSED, AT)
    assert (ledger.counters.reaped, ledger.counters.grid_ended) == (1, 1)


def test_strangers_of_the_last_look_are_known_to_the_next() -> None:
    ledger = Ledger()
    stranger = process(80, session=80)
    seen = replace(snapshot(child()), strangers=(stranger,))
    assert ledger.past({}).known_strangers == frozenset()
    ledger.end(seen, ledger.past({}))
    assert ledger.past({}).known_strangers == {stranger.key}


def leave(ledger: Ledger, *departures: Departure) -> list[str]:
    """Have the child seen, then gone, its worker having said why; return what is said."""
    for seen, sent in ((look(alive=True, at=AT + 1), AT + 1), (look(alive=False, at=AT + 2), AT + 3)):
        lines = ledger.begin(seen, stat(*departures, sent=sent), SETTINGS)
        ledger.end(seen, ledger.past({}))
    return lines


def test_a_retired_child_that_has_left_is_told_with_what_came_back() -> None:
    ledger = Ledger()
    ledger.note(RETIRE, DONE, AT)
    assert leave(ledger) == ["retired slow/20 has left, 2.0 s after it was asked to: 300 MiB came back"]
    assert ledger.counters.recycles["slow"] == {"budget": 1}


def test_a_child_that_died_by_itself_is_told() -> None:
    ledger = Ledger()
    assert leave(ledger) == ["slow/20 died with 300 MiB, not by us"]


@pytest.mark.parametrize("state", ["stopping", "draining"])
def test_children_that_go_with_their_worker_are_not_counted(state: str) -> None:
    ledger = Ledger()
    before = look(alive=True, at=AT + 1)
    after = replace(look(alive=False, at=AT + 2), pools=(slow_view(state=state),))
    for seen in (before, after, replace(after, at=AT + 20)):
        assert ledger.begin(seen, {}, SETTINGS) == []
        ledger.end(seen, ledger.past({}))
    assert ledger.counters.recycles == {}


def test_a_child_that_reached_its_limit_is_counted_and_not_worth_a_line() -> None:
    ledger = Ledger()
    assert leave(ledger, Departure(pid=20, reason="max_tasks")) == []
    assert ledger.counters.recycles["slow"] == {"max_tasks": 1}
    assert ledger.clean_lifetimes == {"slow": 1}


def test_a_new_limit_begins_the_count_of_clean_lifetimes_anew() -> None:
    ledger = Ledger()
    leave(ledger, Departure(pid=20, reason="max_tasks"))
    ledger.note(Tune(pool="slow", max_tasks=5, reason=""), DONE, AT)
    assert ledger.clean_lifetimes == {"slow": 0}


def test_a_change_of_the_settings_is_heeded_by_one_decision_while_the_worker_runs() -> None:
    ledger = Ledger(changed={"slow"})
    silent = replace(look(alive=True, at=AT), pools=(slow_view(state="not answering"),))
    ledger.end(silent, ledger.past({}))
    assert ledger.changed == {"slow"}
    past = ledger.past({})
    ledger.changed.add("fast")  # Told of while the decision was being carried out.
    ledger.end(look(alive=True, at=AT), past)
    assert ledger.changed == {"fast"}


def test_retirements_that_are_not_carried_out_are_counted_until_one_is() -> None:
    ledger = Ledger()
    for _ in range(3):
        ledger.note(RETIRE, REFUSED, AT)
    assert ledger.past({}).refused == {"slow": 3}
    ledger.note(RETIRE, DONE, AT)
    assert ledger.past({}).refused == {}


def test_a_worker_that_does_not_answer_has_not_refused_and_is_asked_again_later() -> None:
    ledger = Ledger()
    ledger.note(RETIRE, Outcome(done=False, line="no answer"), AT)
    past = ledger.past({})
    assert (past.refused, past.retired) == ({}, {CHILD: AT})


def test_what_was_done_when_is_known_to_the_next_decision() -> None:
    ledger = Ledger()
    ledger.note(Replace(pool="slow", reason=""), DONE, AT)
    ledger.note(Preempt(owner=CHILD, processes=(), reason=""), DONE, AT + 1)
    ledger.note(Scale(pool="fast", concurrency=2, reason=""), DONE, AT + 2)
    past = ledger.past({})
    assert (past.replaced, past.preempted, past.scaled) == ({"slow": AT}, AT + 1, {"fast": AT + 2})
    assert ledger.counters.recycles["slow"] == {"replace": 1}


def test_a_kill_by_the_kernel_is_told() -> None:
    ledger = Ledger()
    before, after = look(alive=True, at=AT + 1), look(alive=True, at=AT + 2)
    after = replace(after, container=replace(after.container, oom_kills=2))
    assert ledger.begin(before, {}, SETTINGS) == []
    ledger.end(before, ledger.past({}))
    (line,) = ledger.begin(after, {}, SETTINGS)
    assert line.startswith("the kernel killed 2 processes for want of memory, 2 so far")


def test_a_notice_is_news_once_in_ten_minutes() -> None:
    ledger, notice = Ledger(), Notice(topic="tight slow", text="it is tight")
    assert ledger.is_news(notice, AT)
    ledger.note(notice, DONE, AT)
    assert not ledger.is_news(notice, AT + SAY_AGAIN_SECONDS - 1)
    assert ledger.is_news(notice, AT + SAY_AGAIN_SECONDS)


def test_a_hold_that_only_goes_on_is_no_news() -> None:
    ledger = Ledger()
    assert ledger.is_news(Hold(pool="slow", on=True, renewed=False, reason=""), AT)
    assert not ledger.is_news(Hold(pool="slow", on=True, renewed=True, reason=""), AT)


def test_the_risk_in_the_settings_is_what_the_next_task_is_judged_by() -> None:
    models = {"slow": PoolModel(tails=tuple(range(100 * MIB, 300 * MIB, 2 * MIB)))}
    bold, careful = Ledger().past(models, 0.5), Ledger().past(models, 0.001)
    assert bold.tail_bytes("slow") < careful.tail_bytes("slow")
