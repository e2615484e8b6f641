"""Counting what became of the tasks."""

import pytest

from recyclery_demo.storm import Tally, count_tasks, percentile


def test_a_task_done_once_has_succeeded() -> None:
    assert count_tasks(range(2), {0: 1, 1: 1}, failed=()) == Tally(2, 0, 0, 0, 0)


def test_completions_beyond_the_first_are_duplicates() -> None:
    assert count_tasks(range(2), {0: 3, 1: 1}, failed=()) == Tally(2, 2, 0, 0, 0)


def test_a_task_that_failed_and_was_done_later_has_succeeded() -> None:
    assert count_tasks(range(1), {0: 1}, failed={0}) == Tally(1, 0, 0, 0, 0)


def test_a_task_that_failed_and_was_never_done_has_failed() -> None:
    assert count_tasks(range(2), {1: 1}, failed={0}) == Tally(1, 0, 1, 0, 0)


def test_a_task_that_left_no_trace_is_lost() -> None:
    assert count_tasks(range(3), {1: 1}, failed=()) == Tally(1, 0, 0, 0, 2)


def test_a_task_that_still_waits_is_not_lost() -> None:
    assert count_tasks(range(3), {1: 1}, failed=(), queued={2}) == Tally(1, 0, 0, 1, 1)


def test_numbers_that_nobody_sent_are_not_counted() -> None:
    assert count_tasks(range(1), {0: 1, 9: 4}, failed={8}, queued={7}) == Tally(1, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([], None), ([0.5], 0.5), ([3, 1, 2], 3), (range(1, 101), 95), (range(1, 21), 19)],
)
def test_the_percentile_is_a_value_that_occurred(values: list[float], expected: float | None) -> None:
    assert percentile(values, 95) == expected
