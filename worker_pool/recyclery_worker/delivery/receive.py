"""What this worker receives and has not acknowledged: nothing of it is lost, nor runs twice at once.

A message moves from its queue to the unacknowledged messages atomically, by a script in Redis. By itself kombu
takes it with BRPOP and records it as unacknowledged afterwards: a process that dies in between loses it
(https://github.com/celery/kombu/issues/305). The script also checks the lease: a worker that was taken for dead
receives nothing, whatever of it is still on its way to Redis.

A second connection tells when a queue has changed: Redis sends it the names of changed keys that the first one
has read (CLIENT TRACKING with REDIRECT, https://redis.io/docs/latest/develop/reference/client-side-caching/).
Which keys does not matter.

By itself kombu gives everything back when a connection is lost, also what runs. That would run twice at once,
and what cannot be acknowledged any more would run again. Here what runs stays ours, and moves to the new
connection.
"""

# mypy cannot type a mixin's `super()`.
# mypy: disable-error-code="misc"

import hashlib
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from queue import Empty
from typing import Any

import msgspec
from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, ResponseError

from recyclery_worker.compat import missing
from recyclery_worker.delivery.give_back import BATCH_MESSAGES, give_back, refuses_scripts
from recyclery_worker.delivery.registry import LEASES, Generation, Registry, open_registry
from recyclery_worker.delivery.size_limit import largest_message_bytes, unread_task
from recyclery_worker.parking.poison import AppFailure, format_reason, is_broker_failure, log_parked, park_raw
from recyclery_worker.parking.records import ParkedTask

logger = get_logger(__name__)

RECEIVE_POLL_SECONDS = 2.0  # A lost notification must not delay tasks for long, nor a lease that came too late
TRACKING_ANSWER_SECONDS = 3.0
# AttributeError: a closed channel has no connection to ask for an address.
DISCONNECTED: tuple[type[BaseException], ...] = (*redis.Transport.connection_errors, AttributeError)

# The entry is written as kombu does (kombu/transport/redis.py, QoS.append), and before the message is taken
# from its queue: where Redis takes no writes, nothing has happened. What is no readable message is returned
# unwritten, as by BRPOP; what is too large is parked unread. Empty queues are read by a command, so that Redis
# tells of their next change (CLIENT TRACKING).
RECEIVE_SCRIPT = """
local unacked, index, leases = KEYS[1], KEYS[2], KEYS[3]
-- Where that is no sorted set nobody can see a lease, so nobody gives away what we hold.
local lease = redis.pcall('ZSCORE', leases, ARGV[1])
if not lease or (type(lease) == 'table' and lease.err and not lease.err:find('WRONGTYPE', 1, true)) then
    return lease
end
for number = 4, #KEYS do
    local item = redis.call('LINDEX', KEYS[number], -1)
    if item and #item > tonumber(ARGV[3]) then
        local prefix, separator = ARGV[5], ARGV[6]
        local task, key = cjson.decode(ARGV[4]), KEYS[number]:sub(#prefix + 1)
        task.tag = ARGV[1] .. '-' .. ARGV[2]
        task.task_id, task.at, task.reason = task.tag, tonumber(ARGV[2]), task.reason:format(#item)
        task.keys, task.queues = {key}, {key:sub(1, (key:find(separator, 1, true) or 0) - 1)}
        local entry = cjson.encode(task)
        redis.call('HSET', prefix .. 'recyclery:parked', task.tag, entry)
        redis.call('RPOPLPUSH', KEYS[number], prefix .. 'recyclery:parked:' .. task.tag)
        return {KEYS[number], entry}
    elseif item then
        local readable, message = pcall(cjson.decode, item)
        local properties = readable and type(message) == 'table' and message.properties
        local info = type(properties) == 'table' and properties.delivery_info
        local tag = type(info) == 'table' and properties.delivery_tag
        local way = type(tag) == 'string' and {info.exchange or '', info.routing_key or ''}
        -- Infinity, NaN and deep tables are read, but not written.
        local writable, text = pcall(cjson.encode, way)
        if not way or not writable then
            redis.call('RPOP', KEYS[number])
            return {KEYS[number], item, ''}
        end
        redis.call('ZADD', index, ARGV[2], tag)
        redis.call('HSET', unacked, tag, '[' .. item .. ',' .. text:sub(2))
        redis.call('RPOP', KEYS[number])
        return {KEYS[number], item, tag}
    end
end
return nil
"""
RECEIVE_SCRIPT_SHA = hashlib.sha1(RECEIVE_SCRIPT.encode(), usedforsecurity=False).hexdigest()


class ClientTracking:
    """The second connection; `changed` is called in the worker's loop when a notification arrives."""

    def __init__(self, pool: Any, hub: Any, changed: Callable[[], None]) -> None:
        self._hub = hub
        self._changed = changed
        self._connection = pool.make_connection()
        try:
            self._connection.connect()
            self._connection.send_command("CLIENT", "ID")
            self.id = int(self._connection.read_response())
            # From here on raw: that there is a message is enough, its content does not matter.
            self._connection.send_command("SUBSCRIBE", "__redis__:invalidate")
            self._socket = self._connection._sock
            self._socket.settimeout(TRACKING_ANSWER_SECONDS)
            self._read()
            self._socket.setblocking(False)
        except BaseException:
            self._connection.disconnect()
            raise
        hub.add_reader(self._socket.fileno(), self._on_readable)
        self._timer = hub.call_repeatedly(RECEIVE_POLL_SECONDS, changed)

    def follow(self, connection: Any) -> bool:
        """Subscribe to changes of the keys that `connection` reads; return whether Redis supports that."""
        connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", self.id, "NOLOOP")
        try:
            connection.read_response()
        except ResponseError as error:
            warn_untracked(error)
            return False
        return True

    def close(self) -> None:
        self._timer.cancel()
        if self._socket.fileno() >= 0:
            self._hub.remove_reader(self._socket.fileno())
        self._connection.disconnect()

    def _on_readable(self) -> None:
        try:
            self._read()
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        self._changed()

    def _read(self) -> None:
        if not self._socket.recv(1 << 16):
            raise RedisConnectionError("Redis closed the connection that it tells of changed queues on")


class ReceiveStep(bootsteps.StartStopStep):
    """Consumer bootstep: on every new connection, before the first message is received."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        """Move what runs to the new connection, and track its queues where the worker has an event loop."""
        channel = parent.task_consumer.channel
        if redis.Channel.QoS is UnackedQoS:
            # Tasks that have begun, or were written to a child and will begin.
            jobs = list(getattr(getattr(parent.pool, "_pool", None), "_cache", {}).values())
            written = [getattr(getattr(job, "_accept_callback", None), "__self__", None) for job in jobs]
            requests = [*state.active_requests, *(each for each in written if isinstance(each, Request))]
            UnackedQoS.unacked.move(channel, {request.message.delivery_tag for request in requests})
        if parent.hub is None or not hasattr(channel, "set_tracking"):
            return
        try:
            channel.set_tracking(ClientTracking(channel.pool, parent.hub, channel.poll_again))
        except ResponseError as error:
            warn_untracked(error)

    def stop(self, parent: Any) -> None:
        channel: Any = getattr(parent.task_consumer, "channel", None)
        if (tracking := getattr(channel, "tracking", None)) is not None:
            channel.set_tracking(None)
            tracking.close()


def warn_untracked(error: ResponseError) -> None:
    logger.warning(
        "Redis tells this worker of no changes, so a message that comes to an empty queue is lost when the "
        "worker is killed just as it receives it: %s",
        error,
    )


class AtomicReceive:
    """What a kombu Redis channel does differently; a mixin before it."""

    tracking: ClientTracking | None = None
    written_tag = ""  # The tag of the message being delivered, where Redis has it under our name already
    _refused = False
    _script_on: Any = None  # The socket of the connection that was given the script
    _pending = ""
    """What the channel waits for: the answer to "take" or "brpop", or with "wait" that BRPOP is sent next."""
    _changed = False

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        """Ask for a message; Celery's loop calls this whenever none is asked for."""
        if AtomicReceive._refused or self._pending == "wait":
            self._pending = "brpop"
            super()._brpop_start(*(() if timeout is None else (timeout,)))
            return
        if not (queues := self._queue_cycle.consume(len(self.active_queues))):
            return
        connection = self.client.connection
        if self._script_on is not connection._sock:
            self._prepare(connection)
        self._in_poll, self._brpop_sent_at = connection, time.monotonic()
        prefix = getattr(self, "global_keyprefix", "") or ""
        own = (self.unacked_key, self.unacked_index_key, LEASES)
        lists = [self._q_for_pri(queue, priority) for priority in self.priority_steps for queue in queues]
        keys = [prefix + key for key in (*own, *lists)]
        self._pending, self._changed = "take", False
        self.qos.unacked.expect(self)
        ours = self.qos.unacked.generation.id
        guard = self._most_bytes, self._unread_task, prefix, self.sep
        connection.send_command("EVALSHA", RECEIVE_SCRIPT_SHA, len(keys), *keys, ours, time.time(), *guard)

    def _prepare(self: Any, connection: Any) -> None:
        """Load the script and start tracking, once for each connection."""
        self._script_on = connection._sock
        self._most_bytes = largest_message_bytes()
        self._unread_task = unread_task(self.qos.unacked.generation.node, self._most_bytes)
        connection.send_command("SCRIPT", "LOAD", RECEIVE_SCRIPT)
        try:
            connection.read_response()
        except ResponseError as error:
            # EVALSHA will be refused too, and is handled.
            logger.debug("Redis took no script: %s", error)
        if self.tracking is not None and not self.tracking.follow(connection):
            self.tracking.close()
            self.tracking = None

    def _brpop_read(self: Any, **options: Any) -> bool:
        """Deliver what has come; raises Empty where that is nothing."""
        pending, self._pending = self._pending, ""
        if pending == "brpop":
            return bool(self._survive(super()._brpop_read, **options))
        if pending != "take":
            # The connection was closed while nothing is asked for.
            self._pending, self._in_poll = pending, None
            raise Empty
        try:
            return bool(self._deliver_taken(self._read_taken()))
        finally:
            self.qos.unacked.expect_no_more(self)

    def _receive_one(self: Any, client: Any) -> Any:
        """Deliver one broadcast: remote control."""
        return self._survive(super()._receive_one, client)

    def _survive(self: Any, deliver: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Deliver; what is no message is dropped and logged, as nobody has it any more."""
        try:
            return deliver(*args, **options)
        except Exception as error:
            if isinstance(error, (Empty, AppFailure)) or is_broker_failure(self.connection, error):
                raise
            logger.error("what is no message is dropped: %s", format_reason(error), exc_info=error)
            return True

    def _read_taken(self: Any) -> Any:
        connection = self.client.connection
        self._in_poll = None
        try:
            return self.client.parse_response(connection, "EVALSHA")
        except NoScriptError:
            self._script_on = None
        except ResponseError as error:
            if not refuses_scripts(error):
                raise
            # From now on messages are received as kombu does.
            if not AtomicReceive._refused:
                AtomicReceive._refused = True
                logger.warning(
                    "Redis runs no script for this worker, so a message is lost when the worker is killed just "
                    "as it receives it, and one that is too large for its memory is received: %s",
                    error,
                )
        except self.connection_errors:
            connection.disconnect()
            raise
        raise Empty

    def _deliver_taken(self: Any, taken: Any) -> bool:
        if not taken:
            self._idle()
            raise Empty
        key, item, *tags = map(bytes_to_str, taken)
        key = key.removeprefix(getattr(self, "global_keyprefix", "") or "")
        queue = key.rsplit(self.sep, 1)[0]
        self._queue_cycle.rotate(queue)
        if not tags:
            log_parked(msgspec.json.decode(item, type=ParkedTask))
            return True
        (tag,) = tags
        self.written_tag = tag
        try:
            self.connection._deliver(loads(item), queue)
        except Exception as error:
            if isinstance(error, AppFailure) or is_broker_failure(self.connection, error):
                raise
            # No message: what Celery cannot do with one is caught before.
            self.written_tag = ""
            unacked = self.qos.unacked
            node = unacked.generation.node
            park_raw(self, key, taken[1], tag=tag, reason=format_reason(error), node=node)
            unacked.remove(tag)
            virtual.QoS.ack(self.qos, tag)
        finally:
            if self.written_tag:
                # The consumer acknowledges nothing.
                self.written_tag = ""
                self.qos._remove_from_indices(tag).execute()
        return True

    def _idle(self: Any) -> None:
        """Wait for a change, or where changes are not tracked, as kombu does."""
        if self.tracking is None:
            self._pending = "wait"
        elif not self._changed:
            # While `_in_poll` is set kombu asks for nothing; without `_brpop_sent_at` no answer can be late.
            self._pending, self._in_poll, self._brpop_sent_at = "", self.client.connection, None

    def set_tracking(self: Any, tracking: ClientTracking | None) -> None:
        """Wait for changes by another connection from now on, or by none."""
        self.tracking = tracking
        # So that it follows a connection that is already open.
        self._script_on = None

    def poll_again(self: Any) -> None:
        """Ask again, as a queue has changed."""
        self._changed = True
        if not self._pending:
            self._in_poll = None

    def _update_queue_cycle(self: Any) -> None:
        super()._update_queue_cycle()
        self.poll_again()


def receive_atomically() -> None:
    """Have channels made from now on do so, where kombu has the private names for it."""
    if names := ", ".join(name.partition(".")[2] for name in missing("receive")):
        logger.warning("this kombu has no %s, so messages are received as it does by itself", names)
        return
    redis.Transport.Channel = type("Channel", (AtomicReceive, redis.Channel), {})
    redis.SentinelTransport.Channel = type("Channel", (AtomicReceive, redis.SentinelChannel), {})


def receive_as_kombu() -> None:
    """Receive as kombu does, where this worker keeps no lease; yet what is no message does not end it."""
    AtomicReceive._refused = True
    receive_atomically()


class Unacked:
    """The unacknowledged messages of a generation, by delivery tag."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        self.messages: dict[str, Any] = {}
        # Received, but not yet in Redis under our name.
        self.unwritten: set[str] = set()
        # Done, but not yet acknowledged: added by the worker's loop, acknowledged by the lease's thread.
        self._deferred: set[str] = set()
        self._lock = threading.Lock()
        # What the last connection held and did not run, where that is much: as tags, then as `Registry.held`.
        self._left_tags: set[str] = set()
        self._left: dict[str, float | None] = {}
        # Channels that wait for Redis's answer, and how many requests were sent.
        self._expecting: set[Any] = set()
        self._requests = 0

    def expect(self, channel: Any) -> None:
        """Record that Redis may write a message under our name that we have not seen yet."""
        # In this order, as another thread reads them in the other: what it counts it also finds here.
        self._expecting.add(channel)
        self._requests += 1

    def expect_no_more(self, channel: Any) -> None:
        self._expecting.discard(channel)

    def find_orphans(self, registry: Registry) -> dict[str, float | None]:
        """Return what is under our name and not in hand, as `Registry.held`.

        A connection left it, or it was never seen, as its answer was lost. Nothing is known while Redis owes an
        answer: what comes with it is under our name before we see it. What is just being rejected looks like an
        orphan too: it keeps its tag when it comes again, but not its time.
        """
        if tags := self._left_tags:
            # Read before any of it is given back: what is then received again has another time.
            held = registry.held(self.generation)
            self._left = {tag: taken_at for tag, taken_at in held.items() if tag in tags}
            self._left_tags = set()
        if left := self._left:
            return left
        requests = self._requests
        if self._expecting or registry.count_held(self.generation) <= len(self.messages) + len(self._deferred):
            return {}
        held = registry.held(self.generation)
        with self._lock:
            known = self.messages.keys() | self._deferred
        orphans = {tag: taken_at for tag, taken_at in held.items() if tag not in known}
        return orphans if self._requests == requests else {}

    def give_back_orphans(self, channel: Any, orphans: Mapping[str, float | None]) -> None:
        """Give back what `find_orphans` has found; raises what kombu and redis raise when Redis is away."""
        give_back(channel, open_registry(channel), self.generation, orphans)
        if self._left is orphans:
            self._left = {}

    def remove(self, tag: str) -> None:
        """Forget a message that is acknowledged or given back."""
        self.messages.pop(tag, None)
        self.unwritten.discard(tag)

    def let_go(self, message: Any) -> None:
        """Forget a message that nobody runs any more; it is an orphan then."""
        self.remove(message.delivery_tag)
        virtual.QoS.ack(message.channel.qos, message.delivery_tag)

    def defer_ack(self, tag: str) -> None:
        """Forget a message that is done; it is acknowledged when Redis is back."""
        with self._lock:
            self._deferred.add(tag)
        self.remove(tag)

    def flush_acks(self, registry: Registry) -> None:
        """Send the deferred acknowledgements; raises redis.RedisError when Redis does not answer."""
        with self._lock:
            deferred = list(self._deferred)
        if deferred:
            registry.forget(self.generation, deferred)
            with self._lock:
                self._deferred.difference_update(deferred)

    def move(self, channel: Any, running: set[str]) -> None:
        """Move what runs (delivery tags: two may have one id) to a new connection, and give back all else.

        Nothing is received meanwhile. Much, like thousands of tasks with a countdown, is listed and given back
        later by a thread, as the worker's loop must answer. Raises what kombu and redis raise when Redis is
        away.
        """
        registry = open_registry(channel)
        kept = {tag: message for tag, message in self.messages.items() if tag in running}
        with self._lock:
            spared = self._deferred | kept.keys()
        unwritten = self.unwritten - kept.keys()
        if unwritten or registry.count_held(self.generation) <= BATCH_MESSAGES:
            held = registry.held(self.generation)
            left = {tag: taken_at for tag, taken_at in held.items() if tag not in spared}
            if len(left) <= BATCH_MESSAGES:
                give_back(channel, registry, self.generation, left)
            else:
                self._left = left
            for tag in unwritten - held.keys():
                requeue(channel, self.messages[tag])
        else:
            self._left_tags = self.messages.keys() - spared
        for tag, message in kept.items():
            message.channel = channel
            # Only counted for the prefetch limit: Redis has it already.
            virtual.QoS.append(channel.qos, message, tag)
        self.messages, self.unwritten = kept, set()
        self._expecting.clear()


class UnackedQoS(redis.QoS):
    """kombu's acknowledgements, which outlast a connection."""

    unacked: Unacked

    def append(self, message: Any, delivery_tag: str) -> None:
        self.unacked.messages[delivery_tag] = message
        self.unacked.unwritten.add(delivery_tag)
        channel: Any = self.channel
        if delivery_tag == getattr(channel, "written_tag", ""):
            channel.written_tag = ""
            virtual.QoS.append(self, message, delivery_tag)
        else:
            try:
                super().append(message, delivery_tag)
            except (LookupError, TypeError, ValueError):  # No address: it could not be given back either.
                self.unacked.remove(delivery_tag)
                raise
        self.unacked.unwritten.discard(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, later where Redis is away."""
        try:
            super().ack(delivery_tag)
        except DISCONNECTED as error:
            logger.debug("acknowledged later: %r", error)
            self.unacked.defer_ack(delivery_tag)
        else:
            self.unacked.remove(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Reject a message, later where Redis is away or the connection is gone."""
        try:
            super().reject(delivery_tag, requeue=requeue)
        except DISCONNECTED as error:
            logger.debug("rejected later: %r", error)
            held = self.unacked.messages.get(delivery_tag)
            if not requeue:
                self.unacked.defer_ack(delivery_tag)
            # Else it was given back with its connection, and may have come again on another.
            elif held is not None and held.channel is self.channel:
                self.unacked.let_go(held)
        else:
            self.unacked.remove(delivery_tag)

    def restore_visible(self, *_: Any, **__: Any) -> None:
        """Give nothing back for its age: who is dead is told by leases, and a clock may be set forwards."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back nothing with a connection: that is done on the next one, or when the worker ends."""


def install_qos(app: Any, unacked: Unacked) -> None:
    """Keep messages when a connection is lost; called before the first connection is opened."""
    UnackedQoS.unacked = unacked
    redis.Channel.QoS = UnackedQoS
    receive_atomically()
    # What runs counts for the prefetch limit on the new connection too; Celery would count it a second time.
    app.conf.worker_enable_prefetch_count_reduction = False


def requeue(channel: Any, message: Any) -> None:
    """Put a message back at the head of its queue that Redis never had under our name."""
    info = message.delivery_info
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
        pipe.execute()
