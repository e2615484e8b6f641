"""What a worker counts of its tasks' results."""

import pickle
import time
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import Ignore, Reject, Retry

from recyclery_worker.link import SECONDS_BOUNDS
from recyclery_worker.pool.task_stats import MAX_QUEUES, ResultCounter


class Request:
    """As far as a result knows Celery's."""

    def __init__(self, queue: str) -> None:
        self.delivery_info = {"routing_key": queue}

    def on_success(self) -> None: ...


def result(queue: str = "low") -> Any:
    return SimpleNamespace(_callback=Request(queue).on_success, _time_accepted=time.monotonic() - 0.2)


def failure(error: Exception) -> Any:
    """What a child sends of a task that raised, as it arrives."""
    try:
        raise error
    except Exception:
        return pickle.loads(pickle.dumps((True, (1, ExceptionInfo(), None))))


def test_task_results_are_counted_by_outcome() -> None:
    stats = ResultCounter()
    stats.record_result(result(), (True, (0, "42", 3.0)))
    for error in (ValueError(), Retry(), Ignore(), Reject()):
        stats.record_result(result(), failure(error))
    tally = stats.tally()
    assert (tally.succeeded, tally.failed, tally.retried) == (1, 1, 1)
    assert sum(tally.queues["low"].counts) == 5
    assert tally.queues["low"].seconds == pytest.approx(3.8, abs=0.5)


def test_a_lost_task_is_counted_once_when_celery_signals_its_failure() -> None:
    stats = ResultCounter()
    stats.record_result(result(), (False, ExceptionInfo))
    stats.record_lost(task_id="a", exception=ValueError())
    assert (stats.tally().failed, stats.tally().queues) == (1, {})


def test_a_running_time_equal_to_a_bound_counts_in_its_bucket() -> None:
    stats = ResultCounter()
    for seconds in (0.0, 0.1, 10.0, 10.1, 9999.0):
        stats.record_result(result(), (True, (0, "", seconds)))
    counts = stats.tally().queues["low"].counts
    assert [place for place, count in enumerate(counts) for _ in range(count)] == [
        0,
        0,
        SECONDS_BOUNDS.index(10.0),
        SECONDS_BOUNDS.index(30.0),
        len(SECONDS_BOUNDS),
    ]


def test_routing_keys_beyond_the_maximum_are_counted_together() -> None:
    stats = ResultCounter()
    for number in range(MAX_QUEUES + 20):
        stats.record_result(result(f"key{number}"), (True, (0, "", 1.0)))
    queues = stats.tally().queues
    assert len(queues) == MAX_QUEUES + 1
    assert sum(queues[""].counts) == 20


@pytest.mark.parametrize("reply", [(True, None), (True, 7), (True, ("a", "b")), (True, "abc"), None, ()])
def test_what_was_no_task_is_not_counted_and_does_not_end_the_worker(reply: object) -> None:
    stats = ResultCounter()
    stats.record_result(None, reply)
    tally = stats.tally()
    assert (tally.succeeded, tally.failed, tally.queues) == (0, 0, {})
