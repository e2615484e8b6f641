"""What came of this worker's tasks and how long they ran, counted where the results come in.

Of a task that ended its child tells; for one whose child was lost, or whose hard time limit passed, the main
process must speak itself, and sends Celery's task_failure as it does.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]
from celery import signals
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_logger

from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally, now

logger = get_logger(__name__)

# Routing keys of a topic exchange may be without number.
MOST_QUEUES = 50
OTHER_QUEUES = ""


class Outcomes:
    """Counts since `since`."""

    def __init__(self) -> None:
        self._since = now()
        self._succeeded = self._failed = self._retried = 0
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def note_result(self, result: Any, reply: Any) -> None:
        """Count what a child tells of a task: billiard's (ok, (failed, return value, seconds))."""
        try:
            self._note_result(result, reply)
        except Exception:  # this stands in the middle of Celery's loop: a slip here would end the user's worker
            logger.exception("a task's result could not be counted")

    def _note_result(self, result: Any, reply: Any) -> None:
        ok, told = reply
        # Else Celery speaks for it (`note_lost`), or it was no task that was run.
        if not ok or not isinstance(told, tuple) or len(told) != 3:
            return
        failed, value, seconds = told
        if not failed:
            self._succeeded += 1
        else:
            error = getattr(value, "exception", None)
            if isinstance(error, ExceptionWithTraceback):
                error = error.exc
            if isinstance(error, Retry):
                self._retried += 1
            elif not isinstance(error, Ignore | Reject):
                self._failed += 1
        if seconds is None:
            # Celery times only what succeeds.
            seconds = seconds_since(getattr(result, "_time_accepted", None))
        if seconds is not None:
            self._note_seconds(queue_of(result), seconds)

    def note_lost(self, **_: Any) -> None:
        """Count a task that failed without a word from its child."""
        self._failed += 1

    def _note_seconds(self, queue: str, seconds: float) -> None:
        counts = self._counts.get(queue)
        if counts is None:
            if len(self._counts) >= MOST_QUEUES:
                queue = OTHER_QUEUES
            counts = self._counts.setdefault(queue, [0] * (len(SECONDS_BOUNDS) + 1))
        counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self._seconds[queue] = self._seconds.get(queue, 0.0) + seconds

    def tally(self) -> TaskTally:
        """Return all counts."""
        return TaskTally(
            since=self._since,
            succeeded=self._succeeded,
            failed=self._failed,
            retried=self._retried,
            queues={
                queue: QueueTally(counts=list(counts), seconds=self._seconds[queue])
                for queue, counts in self._counts.items()
            },
        )


def seconds_since(accepted: float | None) -> float | None:
    """Return how long ago a child accepted its task (the system's monotonic clock, its own too)."""
    return None if accepted is None else max(0.0, time.monotonic() - accepted)


def queue_of(result: Any) -> str:
    """Return the routing key by which a result's task came; on Redis that is its queue's name."""
    request = getattr(getattr(result, "_callback", None), "__self__", None)
    told = getattr(request, "delivery_info", None) or {}
    return str(told.get("routing_key") or OTHER_QUEUES)


OUTCOMES = Outcomes()


def follow_lost() -> None:
    """Count what Celery itself says of tasks in the main process."""
    signals.task_failure.connect(OUTCOMES.note_lost, dispatch_uid="recyclery.task_failure")
