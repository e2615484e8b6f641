"""Stops this worker from taking tasks for a while, what it has in hand going on."""

from __future__ import annotations

import time
from typing import Any

from celery.utils.log import get_logger

logger = get_logger(__name__)

RETRY_SECONDS = 1.0


class Holding:
    """The queues that are not consumed from now, and until when (seconds of time.monotonic)."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._queues: list[str] = []
        self._until = 0.0
        self._timer: Any = None

    @property
    def on(self) -> bool:
        """Whether tasks are not taken now."""
        return bool(self._queues)

    def begin(self, seconds: float) -> None:
        """Take no more tasks until told to, or for so long: a governor that died must not stop a queue.

        Raises what Celery raises when it has no connection; the hold is then on, and runs out.
        """
        consumer = self._worker.consumer
        self._until = time.monotonic() + seconds
        self.arm()
        for queue in list(consumer.app.amqp.queues.consume_from):
            self._queues.append(queue)
            consumer.cancel_task_queue(queue)

    def end(self) -> None:
        """Take tasks again; raises what Celery raises when it has no connection."""
        while self._queues:
            self._worker.consumer.add_task_queue(self._queues[-1])
            self._queues.pop()
        self._until = 0.0

    def arm(self) -> None:
        """See to it that the hold runs out; anew after a reconnect, for Celery 5.5 then forgets its timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._until:
            left = max(RETRY_SECONDS, self._until - time.monotonic())
            self._timer = self._worker.timer.call_after(left, self._run_out)

    def _run_out(self) -> None:
        if not self._queues:
            return
        logger.warning("nobody renewed the hold: taking tasks again")
        try:
            self.end()
        except Exception:  # Without a connection: the next try comes by the timer.
            logger.exception("the hold could not be ended yet")
            self.arm()
