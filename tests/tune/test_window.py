"""When a level's window begins and ends, and what of its tasks and looks is in it."""

from dataclasses import replace

import pytest

from recyclery.tune.samples import Look, Marks, why_it_does_not_fit
from recyclery.tune.spec import Level
from recyclery.tune.window import Enough, Goal, Going, Span, Stopped, describe_window, judge, warm_end

GIB = 1 << 30
LOOK = Look(
    at=0.0,
    floor_bytes=GIB // 2,
    hard_bytes=GIB,
    limit_bytes=GIB,
    oom_kills=0,
    serves=True,
    recycles={},
)
GONE = replace(LOOK, at=5.0, recycles={"max_tasks": 1})


def rounds(concurrency: int, count: int, seconds: float = 1.0) -> Marks:
    """Tasks that begin and end together, so many at a time."""
    marks = Marks()
    for number in range(concurrency * count):
        begin = number // concurrency * seconds
        marks.take_in(
            [
                f"due {number} {begin - 0.5:.6f}",
                f"began {number} {begin:.6f} 1",
                f"ended {number} {begin + seconds:.6f} SUCCESS",
            ]
        )
    return marks


@pytest.mark.parametrize(
    ("concurrency", "count", "expected"), [(1, 1, None), (1, 3, 2), (4, 1, None), (4, 3, 8)]
)
def test_the_warm_up_lasts_two_seconds_and_a_task_for_each_child(
    concurrency: int, count: int, expected: int | None
) -> None:
    assert warm_end(rounds(concurrency, count), concurrency) == expected


def test_the_window_of_tasks_that_end_together_has_whole_rounds_and_so_the_true_throughput() -> None:
    goal = Goal(Level(4, 5), least_seconds=5.0, most_seconds=100.0)
    marks = rounds(4, 9)
    verdict = judge(marks, [LOOK, GONE], goal, began=0.0, at=9.0)
    assert isinstance(verdict, Enough)
    ended = marks.ended_between(verdict.span.begin, verdict.span.end)
    assert len(ended) / verdict.span.seconds == pytest.approx(4.0)


def test_a_window_goes_on_until_each_child_can_have_been_recycled_and_one_has_been() -> None:
    goal = Goal(Level(2, 50), least_seconds=5.0, most_seconds=1000.0)
    assert isinstance(judge(rounds(2, 40), [LOOK, GONE], goal, 0.0, 40.0), Going)
    assert isinstance(judge(rounds(2, 60), [LOOK], goal, 0.0, 60.0), Going)
    assert isinstance(judge(rounds(2, 60), [LOOK, GONE], goal, 0.0, 60.0), Enough)


def test_a_window_that_takes_too_long_ends_with_what_there_is() -> None:
    goal = Goal(Level(1, 1000), least_seconds=5.0, most_seconds=20.0)
    assert isinstance(judge(rounds(1, 30), [LOOK], goal, 0.0, 30.0), Enough)


def test_a_level_at_which_no_task_ends_is_given_up() -> None:
    goal = Goal(Level(1, 10), least_seconds=5.0, most_seconds=20.0)
    verdict = judge(Marks(), [LOOK], goal, began=0.0, at=21.0)
    assert verdict == Stopped("0 tasks ended in 21 s")


@pytest.mark.parametrize(
    ("looks", "text"),
    [
        ([LOOK, replace(LOOK, oom_kills=2)], "the kernel killed 2"),
        ([LOOK, replace(LOOK, recycles={"preempt": 1})], "had to be killed"),
        ([LOOK, replace(LOOK, floor_bytes=GIB + 1), replace(LOOK, floor_bytes=GIB + 1)], "past the hard level"),
        ([LOOK, replace(LOOK, floor_bytes=GIB + 1), LOOK], ""),
        ([LOOK, replace(LOOK, recycles={"max_tasks": 3, "budget": 1})], ""),
    ],
)
def test_a_level_does_not_fit_when_somebody_was_killed_or_the_floor_stays_above_the_hard_level(
    looks: list[Look], text: str
) -> None:
    said = why_it_does_not_fit(looks)
    assert text in said
    assert bool(text) == bool(said)


def test_a_window_counts_waiting_from_when_the_task_was_to_come_and_recycles_and_cpu_within() -> None:
    marks = rounds(1, 6)
    looks = [
        replace(LOOK, at=1.0, recycles={"max_tasks": 1}),
        replace(LOOK, at=5.0, recycles={"max_tasks": 3}, floor_bytes=GIB),
    ]
    window = describe_window(
        goal=Goal(Level(1, 5), 1.0, 9.0),
        repeat=0,
        span=Span(2.0, 5.0),
        marks=marks,
        looks=looks,
        cpu=[(0.0, 10.0), (10.0, 20.0)],
        cores=2.0,
        base=LOOK,
        child_peaks=(7,),
    )
    assert window.waited_seconds == pytest.approx((0.5,) * 3)
    assert window.ran_seconds == pytest.approx((1.0,) * 3)
    assert window.recycles == (("max_tasks", 2),)
    assert window.cpu_seconds == pytest.approx(3.0)
    assert (window.base_floor_bytes, window.peak_floor_bytes) == (GIB // 2, GIB)


def test_a_task_that_died_or_was_tried_again_has_been_running_since_it_first_began() -> None:
    marks = Marks()
    marks.take_in(
        ["due 1 0.0", "began 1 1.0 7", "ended 1 2.0 RETRY", "began 1 4.0 8", "ended 1 5.0 FAILURE ValueError"]
    )
    (task,) = marks.ended_between(0.0, 9.0)
    assert (task.began, task.ended, task.failed, task.error) == (1.0, 5.0, True, "ValueError")
    assert marks.errors() == {"ValueError": 1}


def test_marks_of_a_level_before_are_passed_over() -> None:
    marks = Marks()
    marks.take_in(["began 3 1.0 7", "ended 3 2.0 SUCCESS"])
    assert not marks.ends
