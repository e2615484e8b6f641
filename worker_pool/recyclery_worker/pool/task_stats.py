"""Counts of this worker's task results and running times, taken where the results arrive.

A child sends the result of a task that ended. For one whose child was lost, or whose hard time limit passed,
there is none: Celery's main process then sends the signal task_failure.
"""

import time
from bisect import bisect_left
from typing import Any

from billiard.einfo import ExceptionWithTraceback  # type: ignore[attr-defined]
from celery.exceptions import Ignore, Reject, Retry
from celery.utils.log import get_logger

from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally, now

logger = get_logger(__name__)

MAX_QUEUES = 50  # The routing keys of a topic exchange may be unlimited in number


class ResultCounter:
    def __init__(self) -> None:
        self.received = 0  # Messages, since the start of this worker
        self._since = now()
        self._succeeded = self._failed = self._retried = 0
        self._counts: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def record_received(self, **_: Any) -> None:
        """Count a message that becomes a task here, or cannot or must not."""
        self.received += 1

    def record_result(self, result: Any, reply: Any) -> None:
        """Count a child's result of a task: billiard's (ok, (failed, return value, seconds))."""
        try:
            self._record_result(result, *reply)
        except Exception:  # called by Celery's event loop: an error here would end the user's worker
            logger.exception("a task's result could not be counted")

    def _record_result(self, result: Any, ok: bool, answer: Any) -> None:
        # Others are counted by `record_lost`, or did not run.
        if not ok or not isinstance(answer, tuple) or len(answer) != 3:
            return
        failed, value, seconds = answer
        if isinstance(error := getattr(value, "exception", None), ExceptionWithTraceback):
            error = error.exc
        if not failed:
            self._succeeded += 1
        elif isinstance(error, Retry):
            self._retried += 1
        elif not isinstance(error, Ignore | Reject):
            self._failed += 1
        if seconds is None and (accepted := getattr(result, "_time_accepted", None)) is not None:
            # Celery measures only tasks that succeed; the child accepted this one by the same CLOCK_MONOTONIC.
            seconds = max(0.0, time.monotonic() - accepted)
        if seconds is not None:
            # On Redis the routing key is the queue's name.
            request = getattr(getattr(result, "_callback", None), "__self__", None)
            delivery_info = getattr(request, "delivery_info", None) or {}
            self._record_seconds(str(delivery_info.get("routing_key") or ""), seconds)

    def record_lost(self, **_: Any) -> None:
        """Count a task that failed without a result from its child."""
        self._failed += 1

    def _record_seconds(self, queue: str, seconds: float) -> None:
        if queue not in self._counts and len(self._counts) >= MAX_QUEUES:
            queue = ""
        counts = self._counts.setdefault(queue, [0] * (len(SECONDS_BOUNDS) + 1))
        counts[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        self._seconds[queue] = self._seconds.get(queue, 0.0) + seconds

    def tally(self) -> TaskTally:
        return TaskTally(
            since=self._since,
            succeeded=self._succeeded,
            failed=self._failed,
            retried=self._retried,
            queues={name: QueueTally([*counts], self._seconds[name]) for name, counts in self._counts.items()},
        )


TASK_STATS = ResultCounter()
