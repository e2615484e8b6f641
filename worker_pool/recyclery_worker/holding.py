"""Stops this worker from taking tasks for a while, what it has in hand going on."""

from __future__ import annotations

from typing import Any

from celery.utils.log import get_logger

logger = get_logger(__name__)


class Holding:
    """The queues that are not consumed from now, and until when."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._queues: list[str] = []
        self._timer: Any = None

    @property
    def on(self) -> bool:
        """Whether tasks are not taken now."""
        return bool(self._queues)

    def begin(self, seconds: float) -> None:
        """Take no more tasks until told to, or for so long: a governor that died must not stop a queue.

        Raises what Celery raises when it has no connection.
        """
        consumer = self._worker.consumer
        if not self._queues:
            for queue in list(consumer.app.amqp.queues.consume_from):
                consumer.cancel_task_queue(queue)
                self._queues.append(queue)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._worker.timer.call_after(seconds, self._run_out)

    def end(self) -> None:
        """Take tasks again; raises what Celery raises when it has no connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._queues:
            self._worker.consumer.add_task_queue(self._queues[-1])
            self._queues.pop()

    def _run_out(self) -> None:
        logger.warning("nobody renewed the hold: taking tasks again")
        self._timer = None
        try:
            self.end()
        except Exception:  # Without a connection; the queues are taken up with the next one.
            logger.exception("the hold could not be ended yet")
            self._timer = self._worker.timer.call_after(1.0, self._run_out)
