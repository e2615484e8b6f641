"""Isolates a worker that is tuned: its messages stay under the tuning's own keys, and its tasks are logged.

A worker under tuning takes tasks from the tuning's queue alone. What its tasks send goes to the tuning's sink,
and what they send to another broker than the app's is dropped. Results are dropped too.
"""

# mypy does not know that these are attributes of kombu's classes.
# mypy: disable-error-code="method-assign,assignment"

import os
from pathlib import Path
from typing import Any

from celery import signals
from celery.backends.base import DisabledBackend
from celery.utils.log import get_logger
from kombu import Queue, messaging
from kombu.transport import redis

from recyclery_worker.link import now, read_variable
from recyclery_worker.tuning.messages import MARKS_VARIABLE, Space, open_log, own_space

logger = get_logger(__name__)

original_put = redis.Channel._put
original_publish = messaging.Producer._publish


class NullBackend(DisabledBackend):
    """Stores no results. Unlike Celery's own, it lets tasks make chords, which are sent and never run."""

    def ignore(self, *_: Any, **__: Any) -> None: ...

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
        others = [connection.clone(hostname=url) for url in connection.alt]
        # Without passwords.
        own_addresses = {each.as_uri() for each in (connection, *others)}
    warned: set[str] = set()

    def put(channel: Any, queue: str, message: dict[str, Any], **options: Any) -> None:
        if queue != space.queue:
            queue = space.sink
            message = {**message, "properties": {**message["properties"], "priority": 0}}
        original_put(channel, queue, message, **options)

    def publish(producer: Any, *args: Any, **options: Any) -> Any:
        address = producer.channel.connection.client.as_uri()
        if address in own_addresses:
            return original_publish(producer, *args, **options)
        if address not in warned:
            warned.add(address)
            logger.warning("what tasks send to %s is dropped while they are tuned", address)
        return None

    redis.Channel._put = put
    messaging.Producer._publish = publish


def isolate_app(app: Any, space: Space) -> None:
    """Give a worker's app the tuning's queue, and have its tasks leave no results."""
    app.amqp.queues.add(Queue(space.queue, routing_key=space.queue))
    app._backend_cache = NullBackend(app=app)
    for task in app.tasks.values():
        # Also where a task has a backend of its own.
        task._backend = None


def install_if_tuned() -> None:
    space = own_space()
    if space is None:
        return
    # Before the first connection.
    isolate_keys(space)

    def begin(instance: Any = None, **_: Any) -> None:
        isolate_messages(instance.app, space)
        isolate_app(instance.app, space)
        log_tasks(space, Path(read_variable(MARKS_VARIABLE)))

    # The worker chooses its queues soon after this signal (celery/apps/worker.py).
    signals.celeryd_init.connect(begin, weak=False, dispatch_uid="recyclery.tuned")


def log_tasks(space: Space, path: Path) -> None:
    """Write a line when a task of the tuning begins and ends, in any kind of pool."""
    write = open_log(path)

    def log(event: str, task_id: str, *details: object) -> None:
        number = space.number_of(task_id)
        if number is not None:
            write(event, number, f"{now():.6f}", *details)

    def began(task_id: str = "", **_: Any) -> None:
        log("began", task_id, os.getpid())

    def failed(task_id: str = "", exception: Any = None, **_: Any) -> None:
        log("ended", task_id, "FAILURE", type(exception).__name__)

    def ended(task_id: str = "", state: str | None = None, **_: Any) -> None:
        log("ended", task_id, state or "FAILURE")

    signals.task_prerun.connect(began, weak=False, dispatch_uid="recyclery.tuning.began")
    # Sent by the main process too, for a task past its hard time limit, whose child is gone.
    signals.task_failure.connect(failed, weak=False, dispatch_uid="recyclery.tuning.failed")
    signals.task_postrun.connect(ended, weak=False, dispatch_uid="recyclery.tuning.ended")
