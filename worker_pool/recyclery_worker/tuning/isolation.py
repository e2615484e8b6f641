"""Isolates a tuning in Redis: this process's messages stay under the tuning's own keys, whoever sends them.

A worker under tuning takes tasks from the tuning's queue alone. What its tasks send goes to the tuning's sink,
and what they send to another broker than the app's is dropped. Results are dropped too.
"""

# mypy does not know that these are attributes of kombu's classes.
# mypy: disable-error-code="method-assign,assignment"

from __future__ import annotations

from typing import Any

from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger
from kombu import Queue, messaging
from kombu.transport import redis

from recyclery_worker.tuning.messages import Space

logger = get_logger(__name__)

original_put = redis.Channel._put
original_publish = messaging.Producer._publish


class NullBackend(DisabledBackend):
    """Stores no results. Unlike Celery's own, it lets tasks make chords, which are sent and never run."""

    def ignore(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    ensure_chords_allowed = set_chord_size = add_to_chord = on_chord_part_return = ignore


def isolate_keys(space: Space) -> None:
    """Have every connection that kombu opens to a Redis from now on use the tuning's keys, and no others."""

    def read_prefix(channel: Any) -> str:
        return str(channel.__dict__.get("own_keyprefix", "")) + space.prefix

    def set_own_prefix(channel: Any, own: str) -> None:
        channel.__dict__["own_keyprefix"] = own

    redis.Channel.global_keyprefix = property(read_prefix, set_own_prefix)


def isolate_messages(app: Any, space: Space) -> None:
    """Send all messages of this process to the sink, except the tuning's own tasks, which may be requeued."""
    with app.connection_for_write() as connection:
        home = brokers_of(connection)
    warned: set[str] = set()

    def put(channel: Any, queue: str, message: dict[str, Any], **options: Any) -> None:
        if queue != space.queue:
            queue = space.sink
            message = {**message, "properties": {**message["properties"], "priority": 0}}
        original_put(channel, queue, message, **options)

    def publish(producer: Any, *args: Any, **options: Any) -> Any:
        address = producer.channel.connection.client.as_uri()
        if address in home:
            return original_publish(producer, *args, **options)
        if address not in warned:
            warned.add(address)
            logger.warning("what tasks send to %s is dropped while they are tuned", address)
        return None

    redis.Channel._put = put
    messaging.Producer._publish = publish


def brokers_of(connection: Any) -> frozenset[str]:
    """Return the addresses that a connection may use, without passwords."""
    others = [connection.clone(hostname=url) for url in connection.alt]
    return frozenset(each.as_uri() for each in (connection, *others))


def isolate_app(app: Any, space: Space) -> None:
    """Give a worker's app the tuning's queue, and have its tasks leave no results."""
    app.amqp.queues.add(Queue(space.queue, routing_key=space.queue))
    app._backend_cache = NullBackend(app=app)
    for task in app.tasks.values():
        # Also where a task has a backend of its own.
        task._backend = None
