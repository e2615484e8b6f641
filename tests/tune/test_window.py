"""When a level's window begins and ends, and what of its tasks and samples is in it."""

from dataclasses import replace

import pytest

from recyclery.tune.spec import Level
from recyclery.tune.window import (
    Observation,
    StatusSample,
    TaskEvents,
    WindowSpan,
    WindowState,
    count_warm_up,
    why_it_does_not_fit,
)
from support.tune_windows import asked

GIB = 1 << 30
SAMPLE = StatusSample(
    at=0.0,
    floor_bytes=GIB // 2,
    hard_bytes=GIB,
    limit_bytes=GIB,
    oom_kills=0,
    is_serving=True,
    recycles={},
)
GONE = replace(SAMPLE, at=5.0, recycles={"max_tasks": 1})


def rounds(concurrency: int, count: int, seconds: float = 1.0) -> TaskEvents:
    """Tasks that begin and end together, so many at a time."""
    events = TaskEvents()
    for number in range(concurrency * count):
        begin = number // concurrency * seconds
        events.update(
            [
                f"due {number} {begin - 0.5:.6f}",
                f"began {number} {begin:.6f} 1",
                f"ended {number} {begin + seconds:.6f} SUCCESS",
            ]
        )
    return events


def state_of(
    level: Level, events: TaskEvents, samples: list[StatusSample], at: float, most_seconds: float = 1000.0
) -> WindowState:
    """Return the state of a window of five seconds at least, of which the first sample is the base."""
    base, *others = samples
    spec = asked(least_seconds=5.0, most_seconds=most_seconds)
    return Observation(level, base, 2.0, events, others).state(spec, 0.0, at)


@pytest.mark.parametrize(
    ("concurrency", "count", "expected"), [(1, 1, None), (1, 3, 2), (4, 1, None), (4, 3, 8)]
)
def test_the_warm_up_lasts_two_seconds_and_a_task_for_each_child(
    concurrency: int, count: int, expected: int | None
) -> None:
    assert count_warm_up(rounds(concurrency, count), concurrency) == expected


def test_the_window_of_tasks_that_end_together_has_whole_rounds_and_so_the_true_throughput() -> None:
    events = rounds(4, 9)
    state = state_of(Level(4, 5), events, [SAMPLE, GONE], 9.0, most_seconds=100.0)
    assert state.span is not None
    ended = events.ended_between(state.span.begin, state.span.end)
    assert len(ended) / (state.span.end - state.span.begin) == pytest.approx(4.0)


def test_a_window_goes_on_until_each_child_can_have_been_recycled_and_one_has_been() -> None:
    level = Level(2, 50)
    assert state_of(level, rounds(2, 40), [SAMPLE, GONE], 40.0) == WindowState(done=76)
    assert state_of(level, rounds(2, 60), [SAMPLE], 60.0) == WindowState(done=116)
    assert state_of(level, rounds(2, 60), [SAMPLE, GONE], 60.0).span is not None


def test_a_window_that_takes_too_long_ends_with_what_there_is() -> None:
    state = state_of(Level(1, 1000), rounds(1, 30), [SAMPLE], 30.0, most_seconds=20.0)
    assert state.span is not None


def test_a_level_at_which_no_task_ends_is_given_up() -> None:
    state = state_of(Level(1, 10), TaskEvents(), [SAMPLE], 21.0, most_seconds=20.0)
    assert state == WindowState(aborted="0 tasks ended in 21 s")


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        ([SAMPLE, replace(SAMPLE, oom_kills=2)], "the kernel killed 2"),
        ([SAMPLE, replace(SAMPLE, recycles={"preempt": 1})], "had to be killed"),
        (
            [SAMPLE, replace(SAMPLE, floor_bytes=GIB + 1), replace(SAMPLE, floor_bytes=GIB + 1)],
            "past the hard level",
        ),
        ([SAMPLE, replace(SAMPLE, floor_bytes=GIB + 1), SAMPLE], ""),
        ([SAMPLE, replace(SAMPLE, recycles={"max_tasks": 3, "budget": 1})], ""),
    ],
)
def test_a_level_does_not_fit_when_somebody_was_killed_or_the_floor_stays_above_the_hard_level(
    samples: list[StatusSample], text: str
) -> None:
    said = why_it_does_not_fit(samples)
    assert text in said
    assert bool(text) == bool(said)


def test_a_window_counts_waiting_from_when_the_task_was_to_come_and_recycles_and_cpu_within() -> None:
    events = rounds(1, 6)
    samples = [
        replace(SAMPLE, at=1.0, recycles={"max_tasks": 1}),
        replace(SAMPLE, at=5.0, recycles={"max_tasks": 3}, floor_bytes=GIB),
    ]
    cpu = [(0.0, 10.0), (10.0, 20.0)]
    seen = Observation(Level(1, 5), SAMPLE, 2.0, events, samples, cpu)
    window = seen.window(0, WindowSpan(2.0, 5.0), (7,))
    assert window.waited_seconds == pytest.approx((0.5,) * 3)
    assert window.ran_seconds == pytest.approx((1.0,) * 3)
    assert window.recycles == (("max_tasks", 2),)
    assert window.cpu_seconds == pytest.approx(3.0)
    assert (window.base_floor_bytes, window.peak_floor_bytes) == (GIB // 2, GIB)


def test_a_task_that_died_or_was_tried_again_has_been_running_since_it_first_began() -> None:
    events = TaskEvents()
    events.update(
        ["due 1 0.0", "began 1 1.0 7", "ended 1 2.0 RETRY", "began 1 4.0 8", "ended 1 5.0 FAILURE ValueError"]
    )
    (task,) = events.ended_between(0.0, 9.0)
    assert (task.began, task.ended, task.failed, task.error) == (1.0, 5.0, True, "ValueError")
    assert events.count_errors() == {"ValueError": 1}


def test_events_of_a_level_before_are_ignored() -> None:
    events = TaskEvents()
    events.update(["began 3 1.0 7", "ended 3 2.0 SUCCESS"])
    assert not events.ends
