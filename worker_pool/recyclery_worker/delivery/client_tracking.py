"""Redis's word that a queue has changed: so nobody needs to ask again and again, or to take in order to wait.

A connection of its own, which Redis sends the names of changed keys to that another has read (CLIENT TRACKING
with REDIRECT, https://redis.io/docs/latest/develop/reference/client-side-caching/). Which keys does not matter.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

logger = get_logger(__name__)

# A word that is lost must not hold tasks up for long, nor a lease that came too late.
LOOK_EVERY_SECONDS = 2.0
ANSWER_SECONDS = 3.0


class Wake:
    """The connection; `changed` is called in the worker's loop when something is said on it."""

    def __init__(self, pool: Any, hub: Any, changed: Callable[[], None]) -> None:
        self._hub = hub
        self._changed = changed
        self._connection = pool.make_connection()
        try:
            self._connection.connect()
            self._connection.send_command("CLIENT", "ID")
            self.id = int(self._connection.read_response())
            # From here on raw: a reader of Redis's protocol would want to know what each word is for.
            self._connection.send_command("SUBSCRIBE", "__redis__:invalidate")
            self._socket = self._connection._sock
            self._socket.settimeout(ANSWER_SECONDS)
            self._hear()
            self._socket.setblocking(False)
        except BaseException:
            self._connection.disconnect()
            raise
        hub.add_reader(self._socket.fileno(), self._on_readable)
        self._timer = hub.call_repeatedly(LOOK_EVERY_SECONDS, changed)

    def follow(self, connection: Any) -> bool:
        """Be told of others' changes to what another connection reads from now on, if Redis agrees."""
        connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", self.id, "NOLOOP")
        try:
            connection.read_response()
        except ResponseError as error:
            say_waits_plainly(error)
            return False
        return True

    def close(self) -> None:
        """Listen no more."""
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._hub.remove_reader(self._socket.fileno())
        self._connection.disconnect()

    def _on_readable(self) -> None:
        try:
            self._hear()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        self._changed()

    def _hear(self) -> None:
        if not self._socket.recv(1 << 16):
            raise RedisConnectionError("Redis closed the connection that it tells of changed queues on")


class WakeStep(bootsteps.StartStopStep):
    """Consumer bootstep: on every new connection."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Have the channel that tasks come by be woken, where the worker's loop can be."""
        channel = parent.task_consumer.channel
        if parent.hub is None or not hasattr(channel, "be_woken_by"):
            return
        try:
            channel.be_woken_by(Wake(channel.pool, parent.hub, channel.look_again))
        except ResponseError as error:
            say_waits_plainly(error)

    def stop(self, parent: Any) -> None:
        """Be woken no more."""
        channel: Any = getattr(parent.task_consumer, "channel", None)
        wake = getattr(channel, "wake", None)
        if wake is not None:
            channel.be_woken_by(None)
            wake.close()


def say_waits_plainly(error: ResponseError) -> None:
    """Say that an empty queue is waited at as Celery does by itself."""
    logger.warning(
        "Redis tells this worker of no changes, so a message that comes to an empty queue is lost when the "
        "worker is killed just as it receives it: %s",
        error,
    )
