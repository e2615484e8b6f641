"""A message goes from its queue into its worker's hand in one step, by a script that Redis runs.

By itself kombu takes it with BRPOP and writes it down as unacknowledged afterwards: a process that dies
between the two takes it along (https://github.com/celery/kombu/issues/305). The script also asks for the lease:
a worker that was given up for dead takes nothing, whatever of it is still on its way to Redis.

That a queue has changed is told by a connection of its own, which Redis sends the names of changed keys to that
another has read (CLIENT TRACKING with REDIRECT,
https://redis.io/docs/latest/develop/reference/client-side-caching/). Which keys does not matter.
"""

# mypy: disable-error-code="misc"

from __future__ import annotations

import hashlib
import ssl
import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, ResponseError

from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.delivery.registry import LEASES, Generation

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


# Of a mixin mypy does not know what it is mixed into.


# The entry is written as kombu does (kombu/transport/redis.py, QoS.append), and before the message is taken
# from its queue: where Redis takes no writes, nothing has happened. What cannot be read as a message goes out
# unwritten, as by BRPOP. Queues that are empty are looked at by a reading command, so that Redis tells of their
# next change (CLIENT TRACKING).
TAKE = """
local unacked, index, leases = KEYS[1], KEYS[2], KEYS[3]
if not redis.call('ZSCORE', leases, ARGV[1]) then
    return nil
end
for number = 4, #KEYS do
    local item = redis.call('LINDEX', KEYS[number], -1)
    if item then
        local readable, message = pcall(cjson.decode, item)
        local properties = readable and type(message) == 'table' and message.properties
        local info = type(properties) == 'table' and properties.delivery_info
        local tag = type(info) == 'table' and properties.delivery_tag
        if type(tag) ~= 'string' then
            redis.call('RPOP', KEYS[number])
            return {KEYS[number], item, ''}
        end
        local way = cjson.encode({info.exchange or '', info.routing_key or ''})
        redis.call('ZADD', index, ARGV[2], tag)
        redis.call('HSET', unacked, tag, '[' .. item .. ',' .. way:sub(2))
        redis.call('RPOP', KEYS[number])
        return {KEYS[number], item, tag}
    end
end
return nil
"""
TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()
# How Redis 6 and 7 say that this user may not, and others that they cannot; BRPOP meets the rest too.
REFUSALS = ("ACL failure in script", "The user executing the script can't", "unknown command")


class OneStep:
    """What a kombu Redis channel does differently; a mixin before it."""

    generation: Generation
    wake: Wake | None = None
    written_tag = ""
    """The tag of the message that is being delivered, where Redis has it under our name already."""
    _refused = False
    _script_on: Any = None
    _asks = ""
    _woken = False

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        """Ask for a message; on a loop of its own each time that none is asked for."""
        if OneStep._refused or self._asks == "wait":
            self._asks = "brpop"
            super()._brpop_start(*(() if timeout is None else (timeout,)))
            return
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        connection = self.client.connection
        if self._script_on is not connection._sock:
            self._prepare(connection)
        self._in_poll, self._brpop_sent_at = connection, time.monotonic()
        prefix = getattr(self, "global_keyprefix", "") or ""
        own = (self.unacked_key, self.unacked_index_key, LEASES)
        lists = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        keys = [prefix + key for key in (*own, *lists)]
        self._asks, self._woken = "take", False
        self.qos.hand.expect(self)
        connection.send_command("EVALSHA", TAKE_SHA, len(keys), *keys, self.generation.id, time.time())

    def _prepare(self: Any, connection: Any) -> None:
        """Give Redis the script, and have it tell of changes, once for each connection."""
        self._script_on = connection._sock
        connection.send_command("SCRIPT", "LOAD", TAKE)
        try:
            connection.read_response()
        except ResponseError as error:
            # Asked to run it, Redis says so once more.
            logger.debug("Redis took no script: %s", error)
        if self.wake is not None and not self.wake.follow(connection):
            self.wake.close()
            self.wake = None

    def _brpop_read(self: Any, **options: Any) -> bool:
        """Deliver what has come; raises Empty when that is nothing."""
        if self._asks == "brpop":
            self._asks = ""
            return bool(super()._brpop_read(**options))
        if self._asks != "take":
            # Closed while nothing is asked for.
            self._in_poll = None
            raise Empty
        self._asks = ""
        try:
            return bool(self._deliver_taken(self._read_taken()))
        finally:
            self.qos.hand.expect_no_more(self)

    def _read_taken(self: Any) -> Any:
        connection = self.client.connection
        self._in_poll = None
        try:
            return self.client.parse_response(connection, "EVALSHA")
        except NoScriptError:
            self._script_on = None
        except ResponseError as error:
            if not (isinstance(error, NoPermissionError) or any(text in str(error) for text in REFUSALS)):
                raise
            self._refuse(error)
        except self.connection_errors:
            connection.disconnect()
            raise
        raise Empty

    def _deliver_taken(self: Any, taken: Any) -> bool:
        if not taken:
            self._idle()
            raise Empty
        key, item, tag = map(bytes_to_str, taken)
        queue = key.removeprefix(getattr(self, "global_keyprefix", "") or "").rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        self.written_tag = tag
        try:
            self.connection._deliver(loads(item), queue)
        finally:
            if self.written_tag:
                # A consumer that acknowledges nothing.
                self.written_tag = ""
                self.qos._remove_from_indices(tag).execute()
        return True

    def _idle(self: Any) -> None:
        """Wait for a word from Redis, or else as kombu does."""
        if self.wake is None:
            self._asks = "wait"
        elif not self._woken:
            # As long as this is set kombu asks for nothing; no answer is due that could be late.
            self._asks, self._in_poll, self._brpop_sent_at = "", self.client.connection, None

    def be_woken_by(self: Any, wake: Wake | None) -> None:
        """Wait for another's word from now on, or for none."""
        self.wake = wake
        # It is to follow the connection that there may be already.
        self._script_on = None

    def look_again(self: Any) -> None:
        """Ask once more: a queue has changed."""
        self._woken = True
        if not self._asks:
            self._in_poll = None

    def _update_queue_cycle(self: Any) -> None:
        super()._update_queue_cycle()
        self.look_again()

    def _refuse(self: Any, error: ResponseError) -> None:
        """Go on as kombu does by itself."""
        if not OneStep._refused:
            OneStep._refused = True
            logger.warning(
                "Redis runs no script for this worker, so a message is lost when the worker is killed just "
                "as it receives it: %s",
                error,
            )


def receive_in_one_step(generation: Generation) -> None:
    """Have channels that are made from now on do so, where kombu has the parts for it."""
    if missing("receive"):
        logger.warning(
            "%s, so a message is lost when the worker is killed just as it receives it",
            describe_missing("receive"),
        )
        return
    for transport, channel in (
        (redis.Transport, redis.Channel),
        (redis.SentinelTransport, redis.SentinelChannel),
    ):
        transport.Channel = type("Channel", (OneStep, channel), {"generation": generation})
