"""Parks a task, carries out what a person decides on it (retry or drop), and publishes its result."""

import time
from typing import Any

import msgspec
from celery import states
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.json import dumps, loads

from recyclery_worker.parking.records import DeadLetterStore, Parked, ParkedTask, open_dead_letters, times

logger = get_logger(__name__)


def park(request: Any, store: DeadLetterStore, deaths: int, node: str) -> None:
    """Park a request's message instead of running it, and have Celery take it for done."""
    # Where Redis fails, the message goes back to its queue, and the next worker tries again.
    message = request.message
    unacked = message.channel.unacked_key, message.channel.unacked_index_key
    state.task_ready(request)
    try:
        moved = store.park(parked_task(request, node), *unacked)
    except Exception as error:  # kombu and redis raise errors of many kinds
        logger.error("%s[%s] cannot be parked yet: %s", request.name, request.id, error)
        request.reject(requeue=True)
        return
    if moved:
        failure = Parked(
            f"its process died {times(deaths)} while it ran, so it is parked and runs no more by itself; "
            f"`recyclery parked show {request.id}` tells how, `retry_parked` and `drop_parked` decide"
        )
        logger.error("parked %s[%s]: %s", request.name, request.id, failure)
        publish_failure(request, failure)
    # Frees its slot in this worker; in Redis the message has been moved already.
    request.acknowledge()


def parked_task(request: Any, node: str) -> ParkedTask:
    """Return what is stored of a request's message."""
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


def publish_failure(request: Any, failure: Parked) -> None:
    """Store the failure as the result, and send Celery's event."""
    # What follows a failure (errbacks, the rest of a chain, the body of a chord) waits, as the task may yet
    # succeed.
    try:
        if request.store_errors:
            request.task.backend.store_result(request.id, failure, states.FAILURE, request=request._context)
        request.send_event("task-failed", exception=repr(failure), traceback="")
    except Exception:  # result backends raise errors of many kinds, and it is parked all the same
        logger.exception("the result of %s does not show that it is parked", request.id)


def retry_parked(app: Any, channel: Any, task: ParkedTask) -> bool:
    """Put a task back into its queue, without deaths and result; return whether it was still parked.

    Raises what redis and the result backend raise when they do not answer.
    """
    # Imported late: few processes need it.
    from celery.backends.base import DisabledBackend  # noqa: PLC0415

    backend = app.tasks[task.type].backend if task.type in app.tasks else app.backend
    if not isinstance(backend, DisabledBackend):
        # Before the task can run, so that its new result is not forgotten.
        backend.forget(task.task_id)
    return open_dead_letters(channel).put_back(task)


def drop_parked(app: Any, channel: Any, task: ParkedTask) -> bool:
    """Remove a task for good, and fail what waits for it; return whether it was still parked.

    Raises what redis and the result backend raise when they do not answer.
    """
    if not open_dead_letters(channel).remove(task):
        return False
    failure = Parked("its process died again and again while it ran, and it was dropped")
    if task.type not in app.tasks:
        # The app does not know the task any more, so what follows it is not known either.
        app.backend.store_result(task.task_id, failure, states.FAILURE)
        return True
    message = channel.Message(loads(bytes(task.message).decode()), channel=channel)
    request: Any = Request(message, app=app, task=app.tasks[task.type])
    request.task.backend.mark_as_failure(
        task.task_id, failure, request=request._context, store_result=request.store_errors
    )
    return True
