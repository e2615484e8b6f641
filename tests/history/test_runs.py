"""What a run is said to have left: the child's own word joined with the governor's looks."""

from recyclery.history.records import Parts, RunRecord
from recyclery.history.runs import RunTracker
from recyclery_worker.link import ChildReport
from support.snapshots import CHILD, MIB, child, process, snapshot


def report(done: int, mib: int, *, running: str | None = None, **ended: int) -> ChildReport:
    """What a child says: tasks done, its own memory, the task it is at, and those that ended since."""
    return ChildReport(
        pool=CHILD.pool,
        pid=CHILD.pid,
        start_ticks=CHILD.start_ticks,
        tasks_done=done,
        task_id="id" if running else None,
        task_name=running,
        first_task_started=80.0,
        last_task_ended=90.0 if done else None,
        sent=90.0,
        idle_bytes=mib * MIB,
        ended=ended,
    )


def look(runs: RunTracker, *, browser_mib: int = 0, task: str | None = None) -> list[RunRecord]:
    """Have the governor look at the child, with a browser that was begun before the last task ended."""
    members = [process(30, started=85.0, mib=browser_mib)] if browser_mib else []
    seen = child(*members, task_id="id" if task else None, task_name=task)
    return runs.record_snapshot(snapshot(seen), oom_killed=False, preempted=())


def test_a_run_left_what_the_child_held_more_when_it_ended() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="leak"))
    runs.record_report(report(1, 58, leak=1))
    (run,) = look(runs)
    assert (run.tasks, run.place, run.before, run.after) == ({"leak": 1}, 0, Parts(50 * MIB), Parts(58 * MIB))


def test_a_browser_that_the_run_left_is_counted_apart_from_python() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="browse"))
    runs.record_report(report(1, 50, browse=1))
    (run,) = look(runs, browser_mib=200)
    assert (run.after, run.browser_seen) == (Parts(50 * MIB, 200 * MIB), True)


def test_a_task_frees_nothing_where_the_browser_of_the_one_before_is_killed_while_it_runs() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="forgets"))
    runs.record_report(report(1, 50, forgets=1))
    runs.record_report(report(1, 50, running="quits"))
    (left,) = look(runs, browser_mib=200, task="quits")
    runs.record_reap(CHILD, [process(30, started=85.0, mib=200)])
    runs.record_report(report(2, 50, quits=1))
    (freed,) = look(runs)
    assert left.after == Parts(50 * MIB, 200 * MIB)
    assert (freed.before, freed.after) == (Parts(50 * MIB), Parts(50 * MIB))


def test_a_task_that_ended_during_the_kill_of_the_browser_before_frees_nothing_either() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="forgets"))
    runs.record_report(report(1, 50, forgets=1))
    look(runs, browser_mib=200, task="quits")
    runs.record_report(report(2, 50, quits=1))
    runs.record_reap(CHILD, [process(30, started=85.0, mib=200)])
    (freed,) = look(runs)
    assert freed.before == Parts(50 * MIB)


def test_a_browser_that_the_next_task_has_begun_is_not_the_last_ones() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="plain"))
    runs.record_report(report(1, 50, plain=1))
    runs.record_report(report(1, 50, running="browse"))
    seen = child(process(30, started=95.0, mib=200), task_id="id", task_name="browse")
    (run,) = runs.record_snapshot(snapshot(seen), oom_killed=False, preempted=())
    assert run.after == Parts(50 * MIB)


def test_every_run_between_two_looks_is_told_with_what_it_left_itself() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="leak"))
    for done in (1, 2, 3):
        runs.record_report(report(done, 50 + 4 * done, leak=1))
    left = [run.after.python - run.before.python for run in look(runs) if run.after and run.before]
    assert left == [4 * MIB] * 3


def test_short_tasks_that_are_told_of_together_keep_their_names() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="a"))
    runs.record_report(report(3, 51, a=1, b=2))
    (run,) = look(runs)
    assert run.tasks == {"a": 1, "b": 2}


def test_tasks_whose_report_was_lost_are_given_no_name() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="a"))
    runs.record_report(report(3, 51, a=1))
    (run,) = look(runs)
    assert run.tasks == {"": 3}


def test_a_run_that_its_child_died_with_has_no_end() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="leak"))
    look(runs, browser_mib=300, task="leak")
    (run,) = runs.record_snapshot(snapshot(), oom_killed=True, preempted=())
    assert (run.tasks, run.after, run.outcome) == ({"leak": 1}, None, "oom")
    assert run.peak == Parts(60 * MIB, 300 * MIB)


def test_a_run_whose_child_was_preempted_says_so() -> None:
    runs = RunTracker()
    runs.record_report(report(0, 50, running="leak"))
    look(runs, task="leak")
    (run,) = runs.record_snapshot(snapshot(), oom_killed=False, preempted={CHILD})
    assert run.outcome == "preempted"
