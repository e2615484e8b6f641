"""What a person decides on a parked task: that it runs again, or never."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.backends.base import DisabledBackend
from celery.worker.request import Request
from kombu.utils.json import loads

from recyclery_worker.parking.records import Parked, ParkedTask
from recyclery_worker.parking.store import open_lot


def retry(app: Any, channel: Any, task: ParkedTask) -> bool:
    """Put a task back to its queue, its deaths forgotten, its result pending; tell whether it was parked still.

    Raises what redis and the result backend raise when they do not answer.
    """
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
