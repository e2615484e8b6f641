"""Bounds a task that keeps killing its process or worker on RabbitMQ, which would deliver it again for ever.

RabbitMQ counts no deaths: they are counted in the Redis of the result backend. Where there is none, tasks whose
process dies are not given back at all, as with Celery alone. A task that died too often goes, as it was sent,
to a queue of its own, from which RabbitMQ's tools can move it back.
"""

import contextlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from celery import bootsteps, signals
from celery.utils.log import get_logger
from celery.worker import state
from kombu import Producer, Queue
from kombu.exceptions import ChannelError
from redis.exceptions import NoPermissionError, RedisError

from recyclery_worker.broker.connection import BOUNDED_BY_KIND, connect
from recyclery_worker.broker.result_backend import is_redis, open_redis_client
from recyclery_worker.delivery.defaults import REQUEUE, set_default, settle_tasks
from recyclery_worker.parking import admission
from recyclery_worker.parking.admission import (
    NOT_AGAIN,
    count_deaths,
    note_quit,
    publish_failure,
    record_ended_runs,
)
from recyclery_worker.parking.begun import (
    forget_begun,
    list_dead_workers,
    name_worker,
    read_begun,
    record_for,
    recorded_worker,
)
from recyclery_worker.parking.records import DeadLetterStore, Parked, times

logger = get_logger(__name__)

PARKING_QUEUE = "recyclery.parked"


class CountDeaths(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is received."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        record_for(name_worker())

    def start(self, parent: Any) -> None:
        """Have tasks given back whose process dies, if their deaths can be counted."""
        if not is_redis(parent.app.backend):
            logger.warning("%s: its deaths are not counted, as the result backend is not Redis", NOT_AGAIN)
            return
        store, node = DeadLetterStore(open_redis_client(parent.app.backend)), parent.hostname
        note_quit()
        signals.worker_shutting_down.connect(self.stop, weak=False, dispatch_uid="recyclery.begun")

        def open_store(_: Any) -> DeadLetterStore:
            record_dead_workers(store, node)
            return store

        try:
            store.probe()
            # Another container's workers may be given what these had begun.
            record_dead_workers(store, node)
        except NoPermissionError as error:
            logger.warning("%s: its deaths cannot be counted: %s", NOT_AGAIN, error)
            return
        except (RedisError, OSError) as error:  # It may be back before the first death.
            logger.debug("the result backend does not answer yet: %s", error)
        set_default(parent.app, REQUEUE, True)
        settle_tasks(parent.app)
        count_deaths(parent, None, open_store, park_in_queue)

    def stop(self, *_: Any, **__: Any) -> None:
        """Forget what runs, as what a stop cuts off has not died; not where a task has ended this worker."""
        if not admission.has_unasked_quit:
            forget_begun(recorded_worker())

    terminate = stop


def record_dead_workers(store: DeadLetterStore, node: str) -> None:
    """Record what the dead workers of this container had begun; raises redis.RedisError."""
    # RabbitMQ delivers it again at once, to any worker.
    for worker in list_dead_workers():
        running = read_begun(worker)
        record_ended_runs(store, node, running, running)
        forget_begun(worker)


def park_in_queue(request: Any, store: DeadLetterStore, deaths: int, node: str) -> None:
    """Send a request's message to the parking queue instead of running it, and have Celery take it for done."""
    state.task_ready(request)
    where, settle = f"it is parked in the queue {PARKING_QUEUE}", request.acknowledge
    try:
        send_to_parking(request)
    except ChannelError as error:  # It may not declare the queue, or there is one of another kind.
        # Its queue may have an exchange for what is rejected (x-dead-letter-exchange).
        where = f"its message is rejected, as it cannot be parked: {error}"
        settle = partial(request.reject, requeue=False)
    except Exception as error:  # RabbitMQ is away: it delivers it again.
        logger.error("%s[%s] cannot be parked yet: %s", request.name, request.id, error)
        request.reject(requeue=True)
        return
    failure = Parked(
        f"its process or worker died {times(deaths)} while it ran, so it runs no more by itself: {where}"
    )
    logger.error("%s[%s]: %s", request.name, request.id, failure)
    publish_failure(request, failure)
    settle()
    # Whoever moves it back gives it as many runs again. Its Redis may be away.
    with contextlib.suppress(RedisError, OSError):
        store.forget_deaths(request.id)


def send_to_parking(request: Any) -> None:
    """Publish a message again and wait until RabbitMQ has it; raises what kombu raises."""
    message = request.message
    properties: Mapping[str, Any] = message.properties
    kept = {name: properties[name] for name in ("correlation_id", "reply_to", "priority") if name in properties}
    # kombu has uncompressed the body.
    headers = {name: value for name, value in message.headers.items() if name != "compression"}
    options = {**BOUNDED_BY_KIND["amqp"], "confirm_publish": True}
    with request.app.connection_for_write(transport_options=options) as connection:
        connect(connection)
        Producer(connection.default_channel).publish(
            message.body,
            exchange="",
            routing_key=PARKING_QUEUE,
            declare=[Queue(PARKING_QUEUE)],
            content_type=message.content_type,
            content_encoding=message.content_encoding,
            headers=headers | {"x-recyclery-routing-key": message.delivery_info["routing_key"]},
            **kept,
        )
