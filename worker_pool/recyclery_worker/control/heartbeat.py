"""The main process's heartbeat: a datagram every other second, also while its loop stands still.

With it the governor tells a loop that waits for its broker from one that hangs, and both from a process that is
stopped or holds the GIL. Whether the broker answers, and what waits in the queues, is asked by a thread of its
own: the loop stands still while its connection does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.exceptions import ChannelError

from recyclery_worker.broker.connection import BOUNDED
from recyclery_worker.broker.wait import try_write
from recyclery_worker.link import Pulse, encode, governor_socket, now

PULSE_SECONDS = 2.0


class PulseStep(bootsteps.StartStopStep):
    """Worker bootstep; the thread goes on to the process's end: the loop is silent longest in a drain."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Begin to give signs, and to ask the broker of what they tell."""
        backlog = Backlog(parent.app)
        backlog.begin()
        threading.Thread(target=beat, args=(parent, backlog), name="recyclery-pulse", daemon=True).start()


def beat(worker: Any, backlog: Backlog) -> None:
    """Give a sign every other second; a governor that is not there hears none."""
    path = str(governor_socket(Path(os.environ["RECYCLERY_RUNTIME_DIR"])))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        while True:
            with contextlib.suppress(OSError):
                sock.sendto(encode(feel_pulse(worker, backlog)), path)
            time.sleep(PULSE_SECONDS)


def feel_pulse(worker: Any, backlog: Backlog) -> Pulse:
    """Return the sign to give now."""
    return Pulse(
        pool=os.environ["RECYCLERY_POOL"],
        pid=os.getpid(),
        sent=now(),
        broker_answers=backlog.answers,
        waiting=backlog.waiting,
        stopping=is_stopping(worker),
    )


def is_stopping(worker: Any) -> bool:
    """Tell whether the worker was told to end: by a signal, by remote control, or by its lease's keeper."""
    told = (state.should_stop, state.should_terminate)
    ends: Any = bootsteps
    return any(each is not None and each is not False for each in told) or (
        worker.blueprint.state in {ends.CLOSE, ends.TERMINATE}
    )


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
