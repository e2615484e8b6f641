"""The auditor of runs under faults: what it lets pass, and what it does not."""

from dataclasses import replace

import pytest

from chaos.auditor import audit, find_failed
from chaos.record import Blow, Ending, Event, Kept, Look, Record, Run, name_victims, read_runs


def look(at: float, missing: frozenset[int]) -> Look:
    return Look(at, at, missing)


RUN = Run(task=1, box="a", main=10, child=11, began=100.0, ended=101.0)
CUT = replace(RUN, ended=None)
AGAIN = Run(task=1, box="b", main=20, child=21, began=110.0, ended=111.0)
SOUND = Record(
    sent=frozenset({1}),
    doubtful=frozenset(),
    runs=(RUN,),
    blows=(),
    looks=(look(99.0, frozenset()), look(102.0, frozenset())),
    ending=Ending(exit_codes={"a": 0}),
)
KILL_CHILD = Blow("kill child", "a", 100.5, 100.6, children=frozenset({11}))
KILL_MAIN = Blow("kill main", "a", 100.5, 100.6, mains=frozenset({10}))
KILL_BOX = Blow("kill container", "a", 100.5, 100.6)
FREEZE = Blow("freeze main", "a", 100.5, 112.0, mains=frozenset({10}))
RESTART = Blow("restart redis", "", 100.5, 100.9)
QUIT = Blow("quit main", "a", 100.5, 101.6, mains=frozenset({10}))
STEP, STEP_REDIS = Blow("step container", "a", 100.2, 100.2), Blow("step redis", "", 100.2, 100.2)
DISCONNECT = Blow("disconnect all", "", 100.2, 100.2)


def test_a_task_that_was_done_once_is_well() -> None:
    assert audit(SOUND) == []


def test_a_task_that_was_never_done_is_found() -> None:
    looks = (look(99.0, frozenset()), look(102.0, frozenset({1})))
    (finding,) = audit(replace(SOUND, runs=(), looks=looks, blows=(KILL_MAIN, RESTART)))
    assert finding == "task 1 was never done; last seen 99.00, missed from 102.00"


def test_a_task_that_was_missed_only_for_a_moment_was_not_lost_then() -> None:
    looks = (look(100.4, frozenset()), look(100.7, frozenset({1})), look(105.0, frozenset()))
    record = replace(SOUND, runs=(), looks=(*looks, look(106.0, frozenset({1}))), blows=(KILL_MAIN,))
    (finding,) = audit(record)
    assert "last seen 105.00, missed from 106.00" in finding


def test_a_task_that_was_just_being_sent_was_not_seen_then() -> None:
    sending = Look(100.0, 100.0, frozenset(), on_the_way=frozenset({1}))
    looks = (look(99.0, frozenset()), sending, look(100.7, frozenset({1})))
    (finding,) = audit(replace(SOUND, runs=(), looks=looks))
    assert "last seen 99.00, missed from 100.70" in finding


def test_the_kernel_is_taken_to_have_killed_who_was_at_a_task_then_and_never_ended_it() -> None:
    kill = Blow("oom kill", "a", 100.4, 100.5)
    whole, later = replace(RUN, task=2, child=12), replace(CUT, task=3, child=13, began=100.6)
    elsewhere, earlier = replace(CUT, task=4, box="b", child=14), replace(CUT, task=5, child=15, began=80.0)
    assert name_victims(kill, (CUT, whole, later, elsewhere, earlier)).children == {CUT.child}
    assert not name_victims(kill, (whole,)).hits(whole)


@pytest.mark.parametrize("blow", [KILL_CHILD, KILL_MAIN, KILL_BOX, QUIT])
def test_a_task_whose_process_was_killed_may_run_again(blow: Blow) -> None:
    assert audit(replace(SOUND, runs=(CUT, AGAIN), blows=(blow,))) == []


def test_a_task_whose_worker_died_between_its_end_and_its_acknowledgement_may_run_again() -> None:
    died = replace(KILL_MAIN, began=101.1, ended=101.2)
    assert audit(replace(SOUND, runs=(RUN, AGAIN), blows=(died,))) == []


@pytest.mark.parametrize(
    "blow",
    [
        replace(KILL_CHILD, children=frozenset({12})),
        replace(KILL_CHILD, box="b"),
        replace(KILL_MAIN, began=107.0, ended=107.1),
        replace(KILL_MAIN, began=110.5, ended=110.6),
        replace(FREEZE, ended=103.0),
        replace(RESTART, kind="pause redis"),
        replace(FREEZE, kind="freeze child"),
        STEP,
        STEP_REDIS,
        DISCONNECT,
    ],
)
def test_a_task_that_ran_again_without_a_reason_is_found(blow: Blow) -> None:
    (finding,) = audit(replace(SOUND, runs=(RUN, AGAIN), blows=(blow,)))
    assert finding.startswith("task 1 ran again without a reason: a/10/11 100.00 to 101.00, then b/20/21")


def test_a_task_runs_twice_at_a_time_only_where_its_worker_stood_still_for_long() -> None:
    long = replace(RUN, ended=115.0)
    assert audit(replace(SOUND, runs=(long, AGAIN), blows=(FREEZE,))) == []
    assert len(audit(replace(SOUND, runs=(long, AGAIN), blows=(KILL_MAIN,)))) == 1


def test_a_run_that_broke_off_with_nobody_to_blame_is_found() -> None:
    (finding,) = audit(replace(SOUND, sent=frozenset(), runs=(CUT,)))
    assert finding == "task 1 broke off: a/10/11 100.00 to no end, and nothing killed it"


def test_a_run_that_failed_where_nothing_was_done_is_told_apart() -> None:
    failed = replace(SOUND, runs=(replace(RUN, failed=True),))
    assert audit(failed) == []
    assert len(list(find_failed(failed))) == 1
    browser = Blow("kill browser", "a", 100.2, 100.3, children=frozenset({99}))
    assert list(find_failed(replace(failed, blows=(browser,)))) == []


@pytest.mark.parametrize(
    "ending",
    [
        Ending(keys=("recyclery:leases",)),
        Ending(keys=("recyclery:ab:unacked",)),
        Ending(waiting=1),
        Ending(held=1),
        Ending(exit_codes={"a": 1}),
        Ending(exit_codes={"a": None}),
        Ending(defunct=("a/5 chromium",)),
        Ending(browsers=("a/5 chromium",)),
    ],
)
def test_what_is_left_behind_is_found(ending: Ending) -> None:
    assert len(audit(replace(SOUND, ending=ending))) == 1


def test_marks_for_some_days_and_the_queues_of_celerys_own_are_no_remains() -> None:
    keys = ("recyclery:ab:reclaimed", "recyclery:deaths:12", "_kombu.binding.high")
    assert audit(replace(SOUND, ending=Ending(keys=keys))) == []


def test_what_tasks_write_down_is_read_as_runs() -> None:
    lines = [
        '{"what": "begin", "task": 1, "run": "x", "box": "a", "main": 10, "child": 11, "at": 100.0}',
        '{"what": "begin", "task": 2, "run": "y", "box": "a", "main": 10, "child": 12, "at": 100.5}',
        '{"what": "end", "task": 1, "run": "x", "box": "a", "main": 10, "child": 11, "at": 101.0}',
    ]
    assert read_runs(lines) == (RUN, Run(2, "a", 10, 12, 100.5))


def test_a_process_that_was_frozen_with_its_task_may_not_begin_it_when_it_is_let_go() -> None:
    blow = Blow("freeze worker", "b", 98.0, 109.9, mains=frozenset({20}), children=frozenset({21}))
    assert len(audit(replace(SOUND, runs=(RUN, AGAIN), blows=(blow,)))) == 1


def test_a_task_that_raised_memory_error_has_to_fail() -> None:
    record = replace(SOUND, failing=frozenset({1}), runs=(replace(RUN, failed=True),))
    assert audit(record) == [] == list(find_failed(record))
    (finding,) = audit(replace(record, runs=(RUN,)))
    assert "did not fail" in finding


def test_a_task_may_begin_before_its_time_only_where_the_clock_was_set() -> None:
    assert audit(replace(SOUND, due={1: 100.0})) == []
    early = replace(SOUND, due={1: 101.0})
    (finding,) = audit(early)
    assert finding.startswith("task 1 ran 1.0 s too early: a/10/11")
    assert audit(replace(early, blows=(replace(STEP, began=99.0, ended=99.0),))) == []
    assert len(audit(replace(early, blows=(replace(STEP, box="b"),)))) == 1
    assert len(audit(replace(early, blows=(STEP_REDIS,)))) == 1


PARKED = b'{"garbage-7": 1}'


@pytest.mark.parametrize(
    ("parked", "finding"),
    [
        ((), "garbage 7 is parked 0 times"),
        ((PARKED, PARKED), "garbage 7 is parked 2 times"),
        ((b'{"garbage-7": 2}',), "garbage 7 is parked as b'{"),
        ((PARKED, b"task"), "1 parked messages are no garbage: b'task'"),
    ],
)
def test_garbage_that_is_not_parked_once_and_as_it_came_is_found(
    parked: tuple[bytes, ...], finding: str
) -> None:
    (found,) = audit(replace(SOUND, garbage={7: PARKED}, ending=Ending(parked=parked)))
    assert found.startswith(finding)


def test_garbage_that_is_parked_as_other_json_of_the_same_value_is_well() -> None:
    ending = Ending(parked=(b'{"garbage-7":1}', b"\xff garbage-8"))
    garbage = {7: PARKED, 8: b"\xff garbage-8"}
    assert audit(replace(SOUND, garbage=garbage, ending=ending)) == []


@pytest.mark.parametrize("blow", [STEP, STEP_REDIS, DISCONNECT, RESTART, replace(FREEZE, ended=103.0)])
def test_a_living_worker_that_is_taken_for_dead_is_found(blow: Blow) -> None:
    event = Event("a", 111.0, "it was taken for dead")
    (finding,) = audit(replace(SOUND, taken_for_dead=(event,), blows=(blow,)))
    assert finding == "a living worker of a was taken for dead at 111.00: it was taken for dead"
    assert audit(replace(SOUND, taken_for_dead=(event,), blows=(blow, FREEZE))) == []


@pytest.mark.parametrize("blow", [KILL_MAIN, KILL_BOX, QUIT, FREEZE, replace(KILL_CHILD, kind="oom kill")])
def test_a_main_process_that_ended_with_nothing_to_end_it_is_found(blow: Blow) -> None:
    event = Event("a", 101.7, "exit status 1", 10)
    assert audit(replace(SOUND, deaths=(event,), blows=(blow,))) == []
    for other in (replace(blow, box="b"), replace(blow, began=105.0), STEP, DISCONNECT, KILL_CHILD):
        (finding,) = audit(replace(SOUND, deaths=(event,), blows=(other,)))
        assert finding == "the main process 10 of a ended at 101.70: exit status 1"


def test_a_main_process_that_was_told_to_leave_as_it_started_may_end_by_that_and_by_nothing_else() -> None:
    told = replace(KILL_MAIN, kind="replace")
    event = Event("a", 101.7, "terminated by SIGTERM", 10)
    assert audit(replace(SOUND, deaths=(event,), blows=(told,))) == []
    assert len(audit(replace(SOUND, deaths=(replace(event, text="exit status 1"),), blows=(told,)))) == 1
    assert len(audit(replace(SOUND, deaths=(replace(event, main=12),), blows=(told,)))) == 1


def test_a_main_process_that_leaves_without_a_task_whose_child_was_killed_may_end_with_1() -> None:
    told = replace(KILL_MAIN, kind="replace")
    event = Event("a", 101.7, "exit status 1", 10)
    record = replace(SOUND, runs=(CUT, AGAIN), blows=(told, KILL_CHILD))
    assert audit(replace(record, deaths=(event,))) == []
    for other in (replace(event, text="exit status 2"), replace(event, main=12), replace(event, at=150.0)):
        assert len(audit(replace(record, deaths=(other,)))) == 1


def test_what_a_cold_stop_leaves_lying_is_found_unless_another_fault_was_in_the_way() -> None:
    assert audit(replace(SOUND, kept=(Kept("a", 101.6, 104.0),), blows=(QUIT,))) == []
    record = replace(SOUND, kept=(Kept("a", 101.6, 111.6),), blows=(QUIT, STEP_REDIS))
    (finding,) = audit(record)
    assert finding == "a cold stop in a at 101.60 left messages lying for 10.0 s"
    for other in (replace(FREEZE, began=102.0), replace(RESTART, began=102.0, ended=103.0)):
        assert audit(replace(record, blows=(QUIT, other))) == []
