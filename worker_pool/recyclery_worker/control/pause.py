"""Pauses this worker: for a while it takes no tasks, and goes on with those it has."""

from __future__ import annotations

import time
from typing import Any

from celery.utils.log import get_logger

logger = get_logger(__name__)

RETRY_SECONDS = 1.0


class Pause:
    """The queues that are not consumed now, and until when (seconds of time.monotonic)."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._queues: list[str] = []
        self._until = 0.0
        self._timer: Any = None

    @property
    def is_on(self) -> bool:
        """Whether tasks are not taken now."""
        return bool(self._queues)

    def begin(self, seconds: float) -> None:
        """Take no more tasks until `end`, or for so long: the death of a governor must not stop a queue.

        Raises what Celery raises when it has no connection; the pause is then on, and expires.
        """
        consumer = self._worker.consumer
        self._until = time.monotonic() + seconds
        self.start_timer()
        for queue in list(consumer.app.amqp.queues.consume_from):
            self._queues.append(queue)
            consumer.cancel_task_queue(queue)

    def end(self) -> None:
        """Take tasks again; raises what Celery raises when it has no connection."""
        while self._queues:
            self._worker.consumer.add_task_queue(self._queues[-1])
            self._queues.pop()
        self._until = 0.0

    def start_timer(self) -> None:
        """Have the pause expire; called again after a reconnect, when Celery 5.5 forgets its timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._until:
            left = max(RETRY_SECONDS, self._until - time.monotonic())
            self._timer = self._worker.timer.call_after(left, self._expire)

    def _expire(self) -> None:
        if not self._queues:
            return
        logger.warning("the pause was not renewed: taking tasks again")
        try:
            self.end()
        except Exception:  # Without a connection: the timer tries again.
            logger.exception("the pause could not be ended yet")
            self.start_timer()
