"""Whether the broker answers, and what waits in this worker's queues: asked by a thread of its own.

The loop cannot tell: it stands still while its connection does.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery.utils.log import get_logger
from kombu.exceptions import ChannelError

from recyclery_worker.broker.wait import try_write
from recyclery_worker.delivery.registry import BOUNDED

logger = get_logger(__name__)

ASK_EVERY_SECONDS = 2.0


class Backlog:
    """The last answer of a Redis that takes writes. Others are not asked: nothing would bound it."""

    def __init__(self, app: Any) -> None:
        self.answers: bool | None = None
        """None where it is not asked, or was not yet."""
        self.waiting: dict[str, int] | None = None
        """Messages by queue; None while that is not known."""
        self._app = app
        self._queues: dict[str, None] = {}

    def begin(self) -> None:
        """Ask from now on, where the broker is a Redis."""
        with self._app.connection_for_read() as connection:
            if connection.transport.driver_type == "redis":
                threading.Thread(target=self._ask_on, name="recyclery-backlog", daemon=True).start()

    def _ask_on(self) -> None:
        while True:
            try:
                with self._app.connection_for_read(transport_options=BOUNDED) as connection:
                    connection.connect()
                    self._count_on(connection.default_channel)
            except Exception as error:  # kombu and redis raise errors of many kinds; the loop meets them too
                self.answers, self.waiting = False, None
                logger.debug("the broker does not say what waits: %s", error)
            time.sleep(ASK_EVERY_SECONDS)

    def _count_on(self, channel: Any) -> None:
        while True:
            # A queue that an operator took away for a while waits all the same.
            self._queues |= dict.fromkeys(self._app.amqp.queues.consume_from)
            try_write(channel)
            waiting = {queue: count_waiting(channel, queue) for queue in self._queues}
            self.answers, self.waiting = True, waiting
            time.sleep(ASK_EVERY_SECONDS)


def count_waiting(channel: Any, queue: str) -> int:
    """Return how many messages wait in a queue, of all priorities; one that is empty is not there in Redis."""
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except ChannelError:
        return 0
