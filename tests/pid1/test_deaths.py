"""Which ends of a worker count against it."""

import signal

import pytest

from recyclery.pid1.processes import format_exit, is_death, recent

EXITED_3 = 3 << 8


@pytest.mark.parametrize(
    ("status", "asked", "counts"),
    [(EXITED_3, False, True), (signal.SIGKILL, False, True), (0, False, False), (EXITED_3, True, False)],
)
def test_only_an_end_that_nobody_asked_for_and_that_failed_counts(
    status: int, asked: bool, counts: bool
) -> None:
    assert is_death(status, asked=asked) is counts


def test_every_exit_status_but_0_and_every_signal_count_and_are_told_apart() -> None:
    ends = [*(status << 8 for status in range(1, 256)), *signal.valid_signals()]
    assert all(is_death(end, asked=False) for end in ends)
    assert len({format_exit(end) for end in ends}) == len(ends)


def test_deaths_older_than_the_window_are_forgotten() -> None:
    assert recent([0.0, 50.0, 99.0], now=100.0, window_seconds=60.0) == [50.0, 99.0]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (EXITED_3, "ended with status 3"),
        (signal.SIGSEGV, "was killed by SIGSEGV"),
        (signal.SIGKILL, "was killed by SIGKILL, perhaps out of memory"),
        (signal.SIGRTMIN + 3, "was killed by signal 37"),
    ],
)
def test_an_end_is_told_in_words(status: int, words: str) -> None:
    assert format_exit(status) == words
