"""Moves a task to the parked list, and back or away as a person decides; lets those know who wait for it."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from celery import states
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.json import dumps, loads

from recyclery_worker.parking.records import Parked, ParkedTask, times
from recyclery_worker.parking.store import Lot, open_lot

logger = get_logger(__name__)


def park(request: Any, lot: Lot, deaths: int, node: str) -> None:
    """Park a request's message, and take it off this worker's books; it is not to be started then.

    Where Redis does not do it the message goes back to its queue: whoever has it next tries again.
    """
    message = request.message
    unacked = message.channel.unacked_key, message.channel.unacked_index_key
    state.task_ready(request)
    try:
        moved = lot.park(parked_task(request, node), *unacked)
    except Exception as error:  # kombu and redis raise errors of many kinds
        logger.error("%s[%s] cannot be parked yet: %s", request.name, request.id, error)
        request.reject(requeue=True)
        return
    if moved:
        failure = Parked(
            f"its process died {times(deaths)} while it ran, so it is parked and runs no more by itself; "
            f"`recyclery parked show {request.id}` tells how, `retry` and `drop` decide"
        )
        logger.error("parked %s[%s]: %s", request.name, request.id, failure)
        show_parked(request, failure)
    # Frees its place in this worker; what is to be removed in Redis is gone from there already.
    request.acknowledge()


def parked_task(request: Any, node: str) -> ParkedTask:
    """Return what is kept of a request's message."""
    message = request.message
    channel, payload, delivery = message.channel, message._raw, message.delivery_info
    queues = channel._lookup(delivery["exchange"], delivery["routing_key"])
    priority = channel._get_message_priority(payload, reverse=False)
    return ParkedTask(
        tag=message.delivery_tag,
        task_id=request.id,
        name=request.name,
        type=request.type,
        arguments=f"{request.argsrepr or '()'} {request.kwargsrepr or '{}'}",
        at=time.time(),
        node=node,
        queues=queues,
        keys=[channel._q_for_pri(queue, priority) for queue in queues],
        message=msgspec.Raw(dumps(payload).encode()),
    )


def show_parked(request: Any, failure: Parked) -> None:
    """Tell those who wait for the result, and those who watch.

    What follows a failure (errbacks, the rest of a chain, the body of a chord) waits: it may yet succeed.
    """
    try:
        if request.store_errors:
            request.task.backend.store_result(request.id, failure, states.FAILURE, request=request._context)
        request.send_event("task-failed", exception=repr(failure), traceback="")
    except Exception:  # result backends raise errors of many kinds, and it is parked all the same
        logger.exception("the result of %s does not show that it is parked", request.id)


def retry(app: Any, channel: Any, task: ParkedTask) -> bool:
    """Put a task back to its queue, its deaths forgotten, its result pending; tell whether it was parked still.

    Raises what redis and the result backend raise when they do not answer.
    """
    # Few processes need it: not at import.
    from celery.backends.base import DisabledBackend  # noqa: PLC0415

    backend = backend_of(app, task)
    if not isinstance(backend, DisabledBackend):
        # Before it can run: its new result must not be forgotten.
        backend.forget(task.task_id)
    return open_lot(channel).put_back(task)


def drop(app: Any, channel: Any, task: ParkedTask) -> bool:
    """Take a task from the list for good, and let what waits for it fail; tell whether it was parked still.

    Raises what redis and the result backend raise when they do not answer.
    """
    if not open_lot(channel).remove(task):
        return False
    failure = Parked("its process died again and again while it ran, and it was dropped")
    if task.type in app.tasks:
        request = request_of(app, channel, task)
        request.task.backend.mark_as_failure(
            task.task_id, failure, request=request._context, store_result=request.store_errors
        )
    else:
        # The app does not know it any more: nor can what follows it be known.
        app.backend.store_result(task.task_id, failure, states.FAILURE)
    return True


def request_of(app: Any, channel: Any, task: ParkedTask) -> Any:
    """Return a parked message as a worker has it."""
    message = channel.Message(loads(bytes(task.message).decode()), channel=channel)
    return Request(message, app=app, task=app.tasks[task.type])


def backend_of(app: Any, task: ParkedTask) -> Any:
    """Return the result backend of a task, the app's where the app does not know it any more."""
    return app.tasks[task.type].backend if task.type in app.tasks else app.backend
