"""The main process's heartbeat: a datagram every two seconds, also while its event loop is blocked.

With it the governor can tell a loop that waits for its broker from one that hangs, and both from a process that
is stopped or holds the GIL. A second thread asks the broker, as the loop is blocked while its connection is.
"""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from kombu.exceptions import ChannelError

from recyclery_worker.broker.connection import BOUNDED, broker_kind
from recyclery_worker.broker.wait import try_write
from recyclery_worker.link import WorkerHeartbeat, encode_message, governor_socket, now
from recyclery_worker.parking.admission import is_stopping

logger = get_logger(__name__)

HEARTBEAT_SECONDS = 2.0
PROBE_SECONDS = 2.0


class HeartbeatStep(bootsteps.StartStopStep):
    """Worker bootstep; its threads run until the process ends, as the loop is blocked longest in a drain."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        probe, name = BrokerProbe(parent.app), "recyclery-heartbeat"
        if broker_kind(parent.app) == "redis":
            threading.Thread(target=probe.run, name="recyclery-broker-probe", daemon=True).start()
        threading.Thread(target=send_heartbeats, args=(parent, probe), name=name, daemon=True).start()


class BrokerProbe:
    """Whether the broker answers and how many messages wait, where it is a Redis that takes writes."""

    # Other brokers are not asked, as no timeout would bound that.

    def __init__(self, app: Any) -> None:
        self.answers: bool | None = None  # None where the broker is not asked, or was not yet
        self.waiting: dict[str, int] | None = None  # Messages by queue; None while that is not known
        self._app = app
        self._queues: dict[str, None] = {}

    def run(self) -> None:
        while True:
            try:
                with self._app.connection_for_read(transport_options=BOUNDED) as connection:
                    connection.connect()
                    while True:
                        self._ask(connection.default_channel)
                        time.sleep(PROBE_SECONDS)
            except Exception as error:  # kombu and redis raise errors of many kinds; the loop meets them too
                self.answers, self.waiting = False, None
                logger.debug("the broker's queues cannot be counted: %s", error)
            time.sleep(PROBE_SECONDS)

    def _ask(self, channel: Any) -> None:
        # Messages wait in a queue too that an operator cancelled for a while.
        self._queues |= dict.fromkeys(self._app.amqp.queues.consume_from)
        try_write(channel)
        waiting = {queue: count_waiting(channel, queue) for queue in self._queues}
        self.answers, self.waiting = True, waiting


def count_waiting(channel: Any, queue: str) -> int:
    """Return how many messages of all priorities wait in a queue; an empty queue does not exist in Redis."""
    try:
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    except ChannelError:
        return 0


def send_heartbeats(worker: Any, probe: BrokerProbe) -> None:
    """Send a heartbeat every two seconds, whether or not a governor receives it."""
    path = str(governor_socket(Path(os.environ["RECYCLERY_RUNTIME_DIR"])))
    ends: Any = bootsteps
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        while True:
            heartbeat = WorkerHeartbeat(
                pool=os.environ["RECYCLERY_POOL"],
                pid=os.getpid(),
                sent=now(),
                broker_answers=probe.answers,
                waiting=probe.waiting,
                # By a signal, by remote control, or as its lease was lost.
                stopping=is_stopping() or worker.blueprint.state in {ends.CLOSE, ends.TERMINATE},
            )
            with contextlib.suppress(OSError):
                sock.sendto(encode_message(heartbeat), path)
            time.sleep(HEARTBEAT_SECONDS)
