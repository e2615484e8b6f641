"""A result backend that keeps nothing, and takes whatever a task wants of it."""

# mypy: disable-error-code="method-assign,assignment"

from __future__ import annotations

from typing import Any

from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger
from kombu import Queue, messaging
from kombu.transport import redis

from recyclery_worker.tuning.messages import Space


class NoResults(DisabledBackend):
    """Unlike Celery's own, it lets tasks make chords: they are sent, and never run."""

    def ensure_chords_allowed(self) -> None:
        """Nothing is in the way of one."""

    def set_chord_size(self, *_: Any, **__: Any) -> None:
        """Nobody will count."""

    def add_to_chord(self, *_: Any, **__: Any) -> None:
        """Nobody will wait for it."""

    def on_chord_part_return(self, *_: Any, **__: Any) -> None:
        """Nobody counts."""


def keep_no_results(app: Any) -> None:
    """Have an app's tasks leave no results, wherever they would keep them."""
    app._backend_cache = NoResults(app=app)
    for task in app.tasks.values():
        # One that names a backend of its own, too.
        task._backend = None


# Of what is put in kombu's place mypy does not know what it is part of.


logger = get_logger(__name__)

# What kombu does by itself.
put = redis.Channel._put
publish = messaging.Producer._publish


def keep_keys_apart(space: Space) -> None:
    """Have every connection to a Redis that kombu opens from now on use the tuning's keys, and no others."""

    def prefix_of(channel: Any) -> str:
        return str(channel.__dict__.get("own_keyprefix", "")) + space.prefix

    def note_own(channel: Any, own: str) -> None:
        channel.__dict__["own_keyprefix"] = own

    redis.Channel.global_keyprefix = property(prefix_of, note_own)


def keep_messages_apart(app: Any, space: Space) -> None:
    """Have all that is sent from here go to the sink, but for the tuning's own tasks, which may come again."""
    with app.connection_for_write() as connection:
        home = brokers_of(connection)
    told: set[str] = set()

    def put_apart(channel: Any, queue: str, message: dict[str, Any], **options: Any) -> None:
        if queue != space.queue:
            queue = space.sink
            message = {**message, "properties": {**message["properties"], "priority": 0}}
        put(channel, queue, message, **options)

    def publish_apart(producer: Any, *args: Any, **options: Any) -> Any:
        address = producer.channel.connection.client.as_uri()
        if address in home:
            return publish(producer, *args, **options)
        if address not in told:
            told.add(address)
            logger.warning("what tasks send to %s is dropped while they are tuned", address)
        return None

    redis.Channel._put = put_apart
    messaging.Producer._publish = publish_apart


def brokers_of(connection: Any) -> frozenset[str]:
    """Return the addresses that a connection may be to, without passwords."""
    others = [connection.clone(hostname=url) for url in connection.alt]
    return frozenset(each.as_uri() for each in (connection, *others))


def consume_apart(app: Any, space: Space) -> None:
    """Make a worker's app, whatever queues it may have, one that knows the tuning's queue and keeps nothing."""
    app.amqp.queues.add(Queue(space.queue, routing_key=space.queue))
    keep_no_results(app)
