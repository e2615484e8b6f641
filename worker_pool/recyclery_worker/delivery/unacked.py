"""The messages that this worker has received and not acknowledged, kept over lost connections.

By itself kombu gives everything back when a connection is lost, also what runs. That would run twice at once,
and what cannot be acknowledged any more would run again. Here what runs stays ours, and moves to the new
connection.
"""

import threading
from collections.abc import Iterator
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.transport import redis, virtual

from recyclery_worker.delivery.receive import ClientTrackingStep, receive_atomically
from recyclery_worker.delivery.registry import Generation, Registry, open_registry

logger = get_logger(__name__)

# AttributeError: a closed channel has no connection to ask for an address.
DISCONNECTED: tuple[type[BaseException], ...] = (*redis.Transport.connection_errors, AttributeError)


class Unacked:
    """The unacknowledged messages, by delivery tag."""

    def __init__(self) -> None:
        self.messages: dict[str, Any] = {}
        # Received, but not yet in Redis under our name.
        self._unwritten: set[str] = set()
        # Done, but not yet acknowledged: added by the worker's loop, acknowledged by the lease's thread.
        self._deferred: set[str] = set()
        self._lock = threading.Lock()
        # Channels that wait for Redis's answer, and how many requests were sent.
        self._expecting: set[Any] = set()
        self._requests = 0

    def expect(self, channel: Any) -> None:
        """Record that Redis may write a message under our name that we have not seen yet."""
        self._requests += 1
        self._expecting.add(channel)

    def expect_no_more(self, channel: Any) -> None:
        self._expecting.discard(channel)

    def find_orphans(self, registry: Registry, generation: Generation) -> list[str]:
        """Return the tags under our name that we never saw, as the answer was lost with its connection."""
        requests = self._requests
        held = registry.held_tags(generation)
        with self._lock:
            orphans = [tag for tag in held if tag not in self.messages and tag not in self._deferred]
        # While an answer is expected they may just be on their way.
        return [] if self._expecting or self._requests != requests else orphans

    def add(self, tag: str, message: Any) -> None:
        """Record a message that Redis does not have under our name yet."""
        self.messages[tag] = message
        self._unwritten.add(tag)

    def mark_written(self, tag: str) -> None:
        """Record that Redis has a message under our name."""
        self._unwritten.discard(tag)

    def remove(self, tag: str) -> None:
        """Forget a message that is acknowledged or given back."""
        self.messages.pop(tag, None)
        self._unwritten.discard(tag)

    def defer_ack(self, tag: str) -> None:
        """Forget a message that is done; it is acknowledged when Redis is back."""
        with self._lock:
            self._deferred.add(tag)
        self.remove(tag)

    def flush_acks(self, registry: Registry, generation: Generation) -> None:
        """Send the deferred acknowledgements; raises redis.RedisError when Redis does not answer."""
        with self._lock:
            deferred = list(self._deferred)
        if deferred:
            registry.forget(generation, deferred)
            with self._lock:
                self._deferred.difference_update(deferred)

    def move(self, channel: Any, generation: Generation, running: frozenset[str]) -> None:
        """Move what runs to a new connection's channel, and give back everything else.

        Nothing is received meanwhile. Raises what kombu and redis raise when Redis is away.
        """
        held = open_registry(channel).held_tags(generation)
        kept = {tag: message for tag, message in self.messages.items() if task_id(message) in running}
        with self._lock:
            spared = self._deferred | kept.keys()
        # The newest first, so that the oldest is taken first.
        for tag in held:
            if tag not in spared:
                channel.qos.restore_by_tag(tag, leftmost=False)
        for tag in self._unwritten - set(held) - kept.keys():
            requeue(channel, self.messages[tag])
        for tag, message in kept.items():
            message.channel = channel
            # Only counted for the prefetch limit: Redis has it already.
            virtual.QoS.append(channel.qos, message, tag)
        self.messages, self._unwritten = kept, set()
        self._expecting.clear()


class UnackedQoS(redis.QoS):
    """kombu's acknowledgements, which outlast a connection."""

    unacked: Unacked

    def append(self, message: Any, delivery_tag: str) -> None:
        self.unacked.add(delivery_tag, message)
        channel: Any = self.channel
        if delivery_tag == getattr(channel, "written_tag", ""):
            channel.written_tag = ""
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)
        self.unacked.mark_written(delivery_tag)

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
        super().reject(delivery_tag, requeue=requeue)
        self.unacked.remove(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back nothing with a connection: that is done on the next one, or when the worker ends."""


class MoveStep(bootsteps.StartStopStep):
    """Consumer bootstep: on every new connection, before the first message is received."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    unacked: Unacked
    generation: Generation

    def start(self, parent: Any) -> None:
        if redis.Channel.QoS is UnackedQoS:
            running = frozenset(running_ids(parent.pool))
            self.unacked.move(parent.task_consumer.channel, self.generation, running)


def prepare(app: Any, generation: Generation) -> Unacked:
    """Add the steps that move messages between connections; they do nothing until `install_qos`."""
    unacked = Unacked()
    MoveStep.unacked, MoveStep.generation = unacked, generation
    app.steps["consumer"].update({MoveStep, ClientTrackingStep})
    return unacked


def install_qos(app: Any, unacked: Unacked, generation: Generation) -> None:
    """Keep messages when a connection is lost; called before the first connection is opened."""
    UnackedQoS.unacked = unacked
    redis.Channel.QoS = UnackedQoS
    receive_atomically(generation)
    # What runs counts for the prefetch limit on the new connection too; Celery would count it a second time.
    app.conf.worker_enable_prefetch_count_reduction = False


def running_ids(pool: Any) -> Iterator[str]:
    """Yield the ids of tasks that have begun, or were written to a child and will begin."""
    for request in list(state.active_requests):
        yield request.id
    for job in list(getattr(getattr(pool, "_pool", None), "_cache", {}).values()):
        yield getattr(job, "correlation_id", "")


def task_id(message: Any) -> Any:
    return message.headers.get("id") or message.properties.get("correlation_id", "")


def requeue(channel: Any, message: Any) -> None:
    """Put a message back at the head of its queue that Redis never had under our name."""
    info = message.delivery_info
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
        pipe.execute()
