"""The clock of PID 1's deadlines counts the time in which it ran."""

import time

from recyclery.pid1.supervisord import LONGEST_TICK_SECONDS, RunningClock


class Steps:
    """A monotonic clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_clock_goes_on_with_the_seconds() -> None:
    steps = Steps()
    clock = RunningClock(steps)
    before = clock.time()
    for _ in range(10):
        steps.now += 1
        clock.time()
    assert clock.time() - before == 10


def test_the_clock_begins_at_the_time_of_day() -> None:
    assert abs(RunningClock().time() - time.time()) < 5


def test_time_in_which_the_container_was_frozen_does_not_count() -> None:
    steps = Steps()
    clock = RunningClock(steps)
    before = clock.time()
    steps.now += 3600
    assert clock.time() - before == LONGEST_TICK_SECONDS
