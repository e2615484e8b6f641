"""What would end a worker's main process costs one message, and nothing else.

Celery's main loop ends its worker at an exception that it does not expect: at a message that it cannot handle,
and at a task that raised MemoryError. The message is then given back, and ends the next worker. Here such a
message is parked with the reason; where it cannot be kept, on another broker, it is rejected and logged. A task
that raised MemoryError fails.

Where messages like those that Celery sends raise the same error one after the other, something of the app is
broken, such as its own Request class. Then nothing stays parked, and the worker ends as with Celery alone.
"""

import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgspec
from celery import bootsteps, signals, states
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.utils.saferepr import saferepr
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.json import dumps
from redis.exceptions import DataError, NoPermissionError, ResponseError

from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.parking.admission import is_stopping
from recyclery_worker.parking.records import Parked, ParkedTask, as_stored, open_dead_letters, visible

logger = get_logger(__name__)

MAX_SHOWN = 500
# So many ordinary messages in a row that raise the same error are not at fault.
SAME_ERRORS = 3


class OrdinaryTask(msgspec.Struct):
    """What Celery sends of a task, in headers or, by its first protocol, in the body; there may be more."""

    id: str
    task: str
    timelimit: tuple[float | None, float | None] | None = None
    eta: str | None = None
    expires: str | float | None = None
    retries: int | None = None
    ignore_result: bool | None = None
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] | None = None
    group: str | None = None
    group_index: int | None = None
    parent_id: str | None = None
    root_id: str | None = None
    shadow: str | None = None
    origin: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None


class PlainMemoryError(Exception):
    """Stands for a task's MemoryError where Celery would raise that in the main process."""


# As results, events and logs show it.
PlainMemoryError.__name__ = PlainMemoryError.__qualname__ = "MemoryError"
PlainMemoryError.__module__ = "builtins"


class AppFailure(Exception):
    """Ends this worker: what Celery raised at a message is not the message's fault."""


# Whether it has told this worker to stop.
app_has_failed = False


def survive_memory_errors() -> None:
    """Have a task that raised MemoryError fail as with any other exception."""
    # https://github.com/celery/celery/issues/10462
    kind: Any = Request
    on_failure = kind.on_failure

    def fail(self: Any, exc_info: Any, *args: Any, **options: Any) -> Any:
        # billiard wraps an exception from a child together with its traceback.
        error = getattr(exc_info.exception, "exc", exc_info.exception)
        if isinstance(error, MemoryError):
            exc_info.exception = PlainMemoryError(*error.args)
        return on_failure(self, exc_info, *args, **options)

    kind.on_failure = fail


def guard_worker(app: Any) -> str:
    """Guard a worker; return why that cannot be, to be logged, and empty where it can."""
    if missing("poison"):
        return f"{describe_missing('poison')}: MemoryError and bad messages end this worker"
    survive_memory_errors()
    app.steps["worker"].add(PoisonStep)
    return ""


class PoisonStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is received."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Guard what handles a message as it comes, and what hands its task to the pool, then or later."""
        consumer, guard = parent.consumer, Guard(parent)
        create_task_handler, process_task = consumer.create_task_handler, parent._process_task

        def create_guarded(*args: Any, **options: Any) -> Any:
            return partial(guard.receive, create_task_handler(*args, **options))

        process = partial(guard.process, process_task)
        consumer.create_task_handler = create_guarded
        if consumer.on_task_request == process_task:
            consumer.on_task_request = process
        parent._process_task = process
        consumer.call_soon = partial(consumer.call_soon, guard.run_command)


class Guard:
    """Calls Celery's handlers, and decides who pays where one raises: the message, or the worker."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._begin_anew()

    def _begin_anew(self) -> None:
        # Where the latest ordinary messages raised, how many, and which of them are parked.
        self._place: Any = None
        self._raised = 0
        self._parked: list[ParkedTask] = []

    def receive(self, handle: Callable[[Any], Any], message: Any) -> Any:
        try:
            return handle(message)
        except AppFailure:
            raise
        except Exception as error:
            if is_broker_failure(self._worker.consumer, error):
                raise
            self._set_aside(message, error)

    def process(self, process_task: Callable[[Any], Any], request: Any) -> None:
        global app_has_failed
        try:
            # Neither Redis nor a report takes an id that is no text, or that is half a character.
            if not isinstance(request.id, str):
                raise TypeError(f"its id is no text: {request.id!r}")
            request.id.encode()
            process_task(request)
        except Exception as error:
            if is_broker_failure(self._worker.consumer, error):
                raise
            try:
                self._set_aside(request.message, error)
            except AppFailure:
                # Where a timer has called us, it only logs what we raise; Celery ends with this code too.
                app_has_failed = True
                ending: Any = state
                ending.should_stop = EX_FAILURE
                raise
            # Its place in the pool; without an event loop there are none.
            if (release := getattr(self._worker, "_quick_release", None)) is not None:
                release()
        else:
            # A message could be handled: those before it were at fault.
            if self._raised:
                self._convict()

    def run_command(self, work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Do what a remote control command has left to the loop; where it fails nobody waits for the answer."""
        try:
            return work(*args, **options)
        except Exception as error:
            if is_broker_failure(self._worker.consumer, error):
                raise
            logger.error("a remote control command failed: %s", format_reason(error), exc_info=error)

    def _set_aside(self, message: Any, error: Exception) -> None:
        """Set a message aside; raises AppFailure where it is not at fault, or may not be."""
        # What a worker raises that stops says nothing of its app.
        is_ordinary = looks_ordinary(message) and not is_stopping()
        if is_ordinary and self._is_repeated(error):
            for parked in self._parked:
                open_dead_letters(message.channel).put_back(parked)
            raise AppFailure(f"{SAME_ERRORS} messages in a row raised it, and none is parked for it") from error
        task = set_aside(self._worker, message, error, is_ordinary=is_ordinary)
        if is_ordinary and task is not None:
            self._parked.append(task)

    def _convict(self) -> None:
        for task in self._parked:
            publish_reason(self._worker.app, task)
        self._begin_anew()

    def _is_repeated(self, error: Exception) -> bool:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        place = type(error), frame.f_code, line
        if place != self._place:
            self._convict()
            self._place = place
        self._raised += 1
        return self._raised >= SAME_ERRORS


def looks_ordinary(message: Any) -> bool:
    """Return whether a message looks like one of Celery's own."""
    try:
        if "task" in message.headers:
            msgspec.json.encode(message.headers)
            msgspec.convert(message.headers, OrdinaryTask)
            args, kwargs, _ = message.payload
        else:
            msgspec.convert(message.payload, OrdinaryTask)
            args, kwargs = (message.payload.get(name) for name in ("args", "kwargs"))
    except Exception:  # Decoding raises errors of many kinds
        return False
    return isinstance(args, (list, tuple, type(None))) and isinstance(kwargs, (dict, type(None)))


def is_broker_failure(transport: Any, error: Exception) -> bool:
    """Return whether the broker is away or refuses, by the errors of a kombu transport or Celery consumer."""
    failures = (*transport.connection_errors, *transport.channel_errors)
    # kombu's Redis transport takes these for lost connections, but they come from messages too: what lacks a
    # part, or has one that cannot be sent to Redis.
    return isinstance(error, failures) and not isinstance(error, (KeyError, DataError))


def set_aside(worker: Any, message: Any, error: Exception, *, is_ordinary: bool = False) -> ParkedTask | None:
    """Park a message and return what is parked, or reject it where it cannot be kept.

    Raises what kombu and redis raise, and AppFailure where it would have to reject an ordinary one.
    """
    reason = format_reason(error)
    # What Celery had begun to do with it.
    for request in [each for each in list(state.requests.values()) if each.message is message]:
        state.task_ready(request)
    if is_stopping():
        return None  # The pool may take no more tasks: it is given back when this worker has ended.
    logger.error(
        "a message cannot be handled: %s: %s", reason, saferepr(message.headers, MAX_SHOWN), exc_info=error
    )
    signals.task_rejected.send(sender=worker.consumer, message=message, exc=error)
    if message.acknowledged:
        return None
    try:
        task = describe_message(message, reason, worker.hostname)
    except Exception as problem:
        if is_broker_failure(worker.consumer, problem):
            raise
        # Another broker, or an address of its own kind, to which nothing can be put back.
        reject(message, error, problem, is_ordinary=is_ordinary)
        return None
    channel = message.channel
    try:
        moved = open_dead_letters(channel).park(task, channel.unacked_key, channel.unacked_index_key)
    except NoPermissionError as problem:
        reject(message, error, problem, is_ordinary=is_ordinary)
        return None
    if moved:
        log_parked(task)
        if not is_ordinary:  # Else it may yet go back.
            publish_reason(worker.app, task)
    # Frees its place among the messages in hand; in Redis it has been moved already.
    message.ack()
    return task if moved else None


def reject(message: Any, error: Exception, problem: Exception, *, is_ordinary: bool) -> None:
    """Reject what cannot be kept; raises AppFailure where that is an ordinary message."""
    if is_ordinary:
        raise AppFailure("an ordinary message raised it, and cannot be parked") from error
    logger.error("it cannot be kept, and is rejected: %r", problem)
    message.reject()


def describe_message(message: Any, reason: str, node: str) -> ParkedTask:
    headers = message.headers if isinstance(message.headers, dict) else {}
    channel, delivery = message.channel, message.delivery_info
    queues = channel._lookup(delivery["exchange"], delivery["routing_key"])
    priority = channel._get_message_priority(message._raw, reverse=False)
    keys = {channel._q_for_pri(queue, priority): queue for queue in queues}
    tag, item = message.delivery_tag, dumps(message._raw).encode()
    return poisoned(item, keys, tag=tag, headers=headers, reason=reason, node=node)


def park_raw(channel: Any, key: str, item: bytes, *, tag: str, reason: str, node: str) -> None:
    """Park what came from a queue's key and is no message; raises what redis raises."""
    keys = {key: key.rsplit(channel.sep, 1)[0]}
    task = poisoned(item, keys, tag=tag or secrets.token_hex(8), headers={}, reason=reason, node=node)
    store = open_dead_letters(channel)
    try:
        store.park_received(task, channel.unacked_key, channel.unacked_index_key)
    except ResponseError:
        if not tag:  # Nobody has it any more.
            store.client.rpush(store.prefix + key, item)
        raise
    log_parked(task)


def poisoned(
    item: bytes, keys: Mapping[str, str], *, tag: str, headers: Mapping[str, Any], reason: str, node: str
) -> ParkedTask:
    """Return what is parked for a message from `keys` (the queue of each), of which anything may be missing."""

    def text(name: str, default: str) -> str:
        value = headers.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_SHOWN:
            return default
        return value.encode(errors="replace").decode()

    stored, raw = as_stored(item)
    task = ParkedTask(
        tag=tag,
        task_id=text("id", tag),
        name=text("task", "(unreadable)"),
        type=text("task", "(unreadable)"),
        arguments=f"{text('argsrepr', '?')} {text('kwargsrepr', '?')}",
        at=time.time(),
        node=node,
        queues=list(keys.values()),
        keys=list(keys),
        message=stored,
        reason=reason,
        raw=raw,
    )
    # Raises where a tag or a queue is no text: one such would make the whole list unreadable.
    return msgspec.json.decode(msgspec.json.encode(task), type=ParkedTask)


def format_reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_SHOWN]


def log_parked(task: ParkedTask) -> None:
    shown = map(visible, (",".join(task.queues) or "an unknown queue", task.reason, task.task_id))
    logger.error("parked a message of %s: %s; `recyclery parked show %s` shows it", *shown)


def publish_reason(app: Any, task: ParkedTask) -> None:
    """Store the failure as the result, where somebody may wait for it."""
    try:
        failure = Parked(f"its message cannot be handled, so it is parked: {task.reason}")
        app.backend.store_result(task.task_id, failure, states.FAILURE)
    except Exception as error:  # result backends raise errors of many kinds, and it is parked all the same
        logger.debug("the result of %s does not show that it is parked: %r", task.task_id, error)
