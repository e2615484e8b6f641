"""What children and workers say, and what is made of it when a datagram is lost."""

from recyclery.observe.snapshot import ChildState, EndedTask, Owner
from recyclery.observe.workers import MOST_ENDED_TASKS, apply_report, apply_worker_stat, forget_children
from recyclery_worker.link import ChildReport, ChildStat, WorkerStat

CHILD = Owner("slow", 20, 2000)


def report(*, sent: float, done: int = 0, task: str | None = None, ended: float | None = None) -> ChildReport:
    return ChildReport(
        pool="slow", pid=20, start_ticks=2000, tasks_done=done, task_id=task, task_name=task,
        first_task_started=1.0, last_task_ended=ended, sent=sent,
    )  # fmt: skip


def worker(*, sent: float, done: int, task: str | None = None) -> WorkerStat:
    return WorkerStat(
        pool="slow", pid=10, node="slow@host", concurrency=1, max_tasks_per_child=10,
        retires=True, lack="", departures=[],
        children=[ChildStat(pid=20, tasks_done=done, task_id=task, task_name=task)], sent=sent,
    )  # fmt: skip


def test_a_report_of_an_end_is_told_from_one_of_a_start() -> None:
    states: dict[Owner, ChildState] = {}
    assert not apply_report(states, report(sent=1, task="a"))
    assert apply_report(states, report(sent=2, done=1, ended=2))
    assert states[CHILD].task_id is None


def end(name: str, started: float, ended: float, done: int = 1) -> ChildReport:
    """The report of a task's end."""
    told = report(sent=ended, done=done, ended=ended)
    told.last_task_name, told.last_task_started = name, started
    return told


def test_the_times_of_the_tasks_that_ended_are_remembered() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, end("a", 1.0, 2.0))
    # A report of a start repeats the task that ended last.
    begun = end("a", 1.0, 2.0)
    begun.sent, begun.task_id, begun.task_name = 3.0, "2", "b"
    apply_report(states, begun)
    apply_report(states, end("b", 3.0, 5.0, done=2))
    assert states[CHILD].ended_tasks == (EndedTask("a", 1.0, 2.0), EndedTask("b", 3.0, 5.0))


def test_only_the_latest_tasks_are_remembered() -> None:
    states: dict[Owner, ChildState] = {}
    for number in range(MOST_ENDED_TASKS + 5):
        apply_report(states, end("a", number + 0.1, number + 0.9, done=number + 1))
    remembered = states[CHILD].ended_tasks
    assert len(remembered) == MOST_ENDED_TASKS
    assert remembered[-1].started == MOST_ENDED_TASKS + 4.1


def test_a_late_report_does_not_overwrite_a_newer_one() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=5, done=1, ended=5))
    assert not apply_report(states, report(sent=4, task="a"))
    assert states[CHILD].tasks_done == 1


def test_a_lost_end_is_mended_by_the_workers_count() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, task="a"))
    apply_worker_stat(states, {20: CHILD}, worker(sent=9, done=1))
    assert states[CHILD].task_id is None
    ended = states[CHILD].last_task_ended
    assert ended is not None
    assert 1 < ended < 9


def test_a_start_that_was_not_told_is_learned_from_the_worker() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, done=1, ended=1))
    apply_worker_stat(states, {20: CHILD}, worker(sent=9, done=1, task="b"))
    assert (states[CHILD].task_id, states[CHILD].last_task_ended) == ("b", 1)


def test_a_lost_end_and_start_are_mended_by_what_the_worker_sees_running() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, done=1, task="a", ended=0.5))
    apply_worker_stat(states, {20: CHILD}, worker(sent=9, done=2, task="b"))
    known = states[CHILD]
    assert (known.task_id, known.task_name, known.task_started, known.last_task_ended) == ("b", "b", 9, 0.5)


def test_a_task_that_began_before_this_governor_is_learned_from_the_worker_but_not_for_how_long_it_runs() -> (
    None
):
    states: dict[Owner, ChildState] = {}
    apply_worker_stat(states, {20: CHILD}, worker(sent=5, done=3, task="a"))
    assert states[CHILD] == ChildState(tasks_done=3, task_id="a", task_name="a", heard=5)


def test_a_task_began_when_it_was_first_told_of() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, task="a"))
    apply_report(states, report(sent=2, task="a"))
    assert states[CHILD].task_started == 1
    apply_report(states, report(sent=3, done=1, task="b"))
    assert states[CHILD].task_started == 3
    apply_report(states, report(sent=4, done=2, ended=4))
    assert states[CHILD].task_started is None


def test_a_task_that_the_worker_still_sees_running_is_left_alone() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, done=1, task="b", ended=0.5))
    apply_worker_stat(states, {20: CHILD}, worker(sent=9, done=2, task="b"))
    assert states[CHILD].task_id == "b"


def test_a_task_begun_just_now_is_not_mended_away() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=8.9, task="a"))
    apply_worker_stat(states, {20: CHILD}, worker(sent=9, done=1))
    assert states[CHILD].task_id == "a"


def test_a_dead_child_is_forgotten_after_a_while_and_a_living_one_never() -> None:
    states: dict[Owner, ChildState] = {}
    apply_report(states, report(sent=1, task="a"))
    forget_children(states, {CHILD}, 1000)
    assert CHILD in states
    forget_children(states, set(), 30)
    assert CHILD in states
    forget_children(states, set(), 1000)
    assert states == {}
