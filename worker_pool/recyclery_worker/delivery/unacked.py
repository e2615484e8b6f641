"""What this worker has in hand, over connections that come and go.

By itself kombu gives everything back when a connection is lost, what runs too: it would run twice at a time,
and what cannot be acknowledged any more would run again. Here what runs stays ours, and moves to the new one.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.transport import redis, virtual

from recyclery_worker.delivery.receive import WakeStep, receive_in_one_step
from recyclery_worker.delivery.registry import Book, Generation, open_book

logger = get_logger(__name__)

# AttributeError: a channel that is closed has no connection to ask for an address.
CANNOT_BE_TOLD: tuple[type[BaseException], ...] = (*redis.Transport.connection_errors, AttributeError)


class Hand:
    """Messages received and not done with, by delivery tag."""

    def __init__(self) -> None:
        self.messages: dict[str, Any] = {}
        self._unwritten: set[str] = set()
        # Written by the worker's loop, settled by the lease's thread.
        self._owed: set[str] = set()
        self._lock = threading.Lock()
        # Channels that Redis owes an answer, and how often one was asked for.
        self._expecting: set[Any] = set()
        self._asked = 0

    def expect(self, channel: Any) -> None:
        """Note that Redis may write a message under our name that we have not seen yet."""
        self._asked += 1
        self._expecting.add(channel)

    def expect_no_more(self, channel: Any) -> None:
        """Note that its answer was seen."""
        self._expecting.discard(channel)

    def find_strays(self, book: Book, generation: Generation) -> list[str]:
        """Return the tags under our name that we never saw: their answer was lost with its connection."""
        asked = self._asked
        held = book.held_tags(generation)
        with self._lock:
            strays = [tag for tag in held if tag not in self.messages and tag not in self._owed]
        # Else they may just be on their way.
        return [] if self._expecting or self._asked != asked else strays

    def take(self, tag: str, message: Any) -> None:
        """Note that a message came; Redis does not say yet that it is ours."""
        self.messages[tag] = message
        self._unwritten.add(tag)

    def note_written(self, tag: str) -> None:
        """Note that Redis has it under our name."""
        self._unwritten.discard(tag)

    def lay_down(self, tag: str) -> None:
        """Forget a message that is acknowledged or given back."""
        self.messages.pop(tag, None)
        self._unwritten.discard(tag)

    def owe(self, tag: str) -> None:
        """Note that a message is done with, which Redis could not be told."""
        # In this order: what is neither owed nor in hand is a stray.
        with self._lock:
            self._owed.add(tag)
        self.lay_down(tag)

    def settle(self, book: Book, generation: Generation) -> None:
        """Tell Redis what is done with; raises redis.RedisError when it does not answer."""
        with self._lock:
            owed = list(self._owed)
        if owed:
            book.drop(generation, owed)
            with self._lock:
                self._owed.difference_update(owed)

    def move(self, channel: Any, generation: Generation, running: frozenset[str]) -> None:
        """Take what runs along to a new connection's channel, and give all else back.

        Nothing is being received meanwhile. Raises what kombu and redis raise when Redis is away.
        """
        held = open_book(channel).held_tags(generation)
        kept = {tag: message for tag, message in self.messages.items() if task_id(message) in running}
        with self._lock:
            spared = self._owed | kept.keys()
        # The newest first, as the oldest is to be taken first.
        for tag in held:
            if tag not in spared:
                channel.qos.restore_by_tag(tag, leftmost=False)
        for tag in self._unwritten - set(held) - kept.keys():
            put_back(channel, self.messages[tag])
        for tag, message in kept.items():
            message.channel = channel
            # Among those that count for the prefetch limit; Redis has it already.
            virtual.QoS.append(channel.qos, message, tag)
        self.messages, self._unwritten = kept, set()
        self._expecting.clear()


class KeptQoS(redis.QoS):
    """kombu's acknowledgements, which outlast a connection."""

    hand: Hand

    def append(self, message: Any, delivery_tag: str) -> None:
        """Receive a message."""
        self.hand.take(delivery_tag, message)
        channel: Any = self.channel
        if delivery_tag == getattr(channel, "written_tag", ""):
            channel.written_tag = ""
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)
        self.hand.note_written(delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge a message, later where Redis is away."""
        try:
            super().ack(delivery_tag)
        except CANNOT_BE_TOLD as error:
            logger.debug("acknowledged later: %r", error)
            self.hand.owe(delivery_tag)
        else:
            self.hand.lay_down(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Give a message back, or drop it."""
        super().reject(delivery_tag, requeue=requeue)
        self.hand.lay_down(delivery_tag)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give nothing back with a connection: that is done on the next one, or when the worker ends."""


class MoveStep(bootsteps.StartStopStep):
    """Consumer bootstep: on every new connection, before the first message is received."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    hand: Hand
    generation: Generation

    def start(self, parent: Any) -> None:
        """Move what runs to the new connection."""
        if redis.Channel.QoS is not KeptQoS:
            return
        self.hand.move(parent.task_consumer.channel, self.generation, frozenset(running_ids(parent.pool)))


def prepare(app: Any, generation: Generation) -> Hand:
    """Add what moves messages between connections; until `engage` it does nothing."""
    hand = Hand()
    MoveStep.hand, MoveStep.generation = hand, generation
    app.steps["consumer"].add(MoveStep)
    app.steps["consumer"].add(WakeStep)
    return hand


def engage(app: Any, hand: Hand, generation: Generation) -> None:
    """Have this worker keep what it has in hand when its connection is lost; before the first is opened."""
    KeptQoS.hand = hand
    redis.Channel.QoS = KeptQoS
    receive_in_one_step(generation)
    # What runs is counted on the new connection as on the old: it must not be counted twice.
    app.conf.worker_enable_prefetch_count_reduction = False


def running_ids(pool: Any) -> Iterable[str]:
    """Yield the ids of tasks that have begun, or have been written to a child and will."""
    for request in list(state.active_requests):
        yield request.id
    for job in list(getattr(getattr(pool, "_pool", None), "_cache", {}).values()):
        yield getattr(job, "correlation_id", "")


def task_id(message: Any) -> str:
    """Return the id of the task that a message asks for."""
    identity: str = message.headers.get("id") or message.properties.get("correlation_id", "")
    return identity


def put_back(channel: Any, message: Any) -> None:
    """Put a message at the head of its queue again that Redis never had under our name."""
    info = message.delivery_info
    with channel.conn_or_acquire() as client, client.pipeline() as pipe:
        channel._do_restore_message(message._raw, info["exchange"], info["routing_key"], pipe)
        pipe.execute()
