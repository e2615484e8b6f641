"""Admits tasks to the pool, records their deaths, and parks those that have killed their process too often.

The main process decides, just before it would hand the task to a child. Redis is asked only about redelivered
messages.

What was the only task of a worker that died has caused it; of several any may have, so that is nobody's death.
A task to which this happens twice runs alone from then on, so that its guilt or innocence shows.

By marks of the tasks in flight others find what a dead worker had begun. `recyclery:ID:started` is a hash of a
generation, delivery tag to JSON of `StartedRun`. A first run is written within two seconds, together with the
lease, so that it costs nothing, and by the child at once into a file (`begun`); the run of a redelivered
message is written before it begins. Marks of runs that have ended mean nothing, as nobody holds their messages.
"""

import contextlib
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps, states
from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request
from kombu.utils.json import dumps, loads
from msgspec.structs import replace

from recyclery_worker.broker.connection import connected, is_wrong_type
from recyclery_worker.broker.result_backend import uses_redis
from recyclery_worker.compat import describe_missing, is_set, missing
from recyclery_worker.link import DEFAULT_MAX_DEATHS, DeathReport, read_variable
from recyclery_worker.parking.alone import SUSPICIONS, Alone
from recyclery_worker.parking.begun import forget_begun, read_begun
from recyclery_worker.parking.records import (
    DeadLetterStore,
    Death,
    Parked,
    ParkedTask,
    StartedRun,
    as_stored,
    count_caused,
    in_flight_key,
    name_run,
    open_dead_letters,
    times,
    with_report,
)

logger = get_logger(__name__)

REPORTS_KEPT = 100
ALONE_POLL_SECONDS = 1.0
NOT_PARKED = "a task that keeps killing its process is not parked"
NOT_AGAIN = "a task whose process dies fails, and does not run again"
# Renewed while a task runs, so that the marks of a worker that came back from a freeze expire by themselves.
MARKS_KEPT_SECONDS = 24 * 3600


class PoolLimit(msgspec.Struct):
    """A pool's settings, as far as they are needed here."""

    name: str
    max_task_deaths: int = DEFAULT_MAX_DEATHS


class Limits(msgspec.Struct):
    pools: list[PoolLimit] = []


def exceeds_limit(deaths: int, max_deaths: int) -> bool:
    """Return whether a task that died `deaths` times must not run again; 0 is no limit."""
    return 0 < max_deaths <= deaths


def read_max_deaths() -> int:
    """Return this pool's limit; read each time, as the supervisor's settings may change while we run."""
    with contextlib.suppress(OSError, msgspec.DecodeError):
        content = Path(read_variable("RECYCLERY_RUNTIME_DIR"), "settings.json").read_bytes()
        for pool in msgspec.json.decode(content, type=Limits).pools:
            if pool.name == read_variable("RECYCLERY_POOL"):
                return pool.max_task_deaths
    return DEFAULT_MAX_DEATHS


class ReportedDeaths:
    """What the governor reports of children that died, which may come before or after the death is recorded."""

    def __init__(self) -> None:
        self._reports: deque[DeathReport] = deque(maxlen=REPORTS_KEPT)
        self._recorded: deque[tuple[str, int | None]] = deque(maxlen=REPORTS_KEPT)

    def add(self, report: DeathReport) -> bool:
        """Keep a report; return whether that death was recorded before, without it."""
        self._reports.append(report)
        return (report.task_id, report.pid) in self._recorded

    def complete(self, task_id: str, death: Death) -> Death:
        """Return a death that is about to be recorded with what was reported of it, if anything was."""
        self._recorded.append((task_id, death.pid))
        for report in self._reports:
            if (report.task_id, report.pid) == (task_id, death.pid):
                return with_report(death, report)
        return death


# The governor reports to a worker's main process, of which there is one in a process.
reported = ReportedDeaths()


class InFlight:
    """The marks of the tasks that one generation runs."""

    def __init__(self, generation_id: str) -> None:
        self._id = generation_id
        self._key = in_flight_key(generation_id)
        self._marked: dict[str, StartedRun] = {}

    def mark(self, store: DeadLetterStore, tag: str, run: StartedRun) -> None:
        """Write that the run of a redelivered message begins; raises redis.RedisError."""
        self._marked[tag] = run
        self._write(store, {tag: run}, ())

    def update(self, store: DeadLetterStore) -> None:
        """Mark what has begun, remove the marks of what has ended; raises redis.RedisError."""
        # A worker that was told to stop has no marks: what it cuts off is no death of a task.
        if is_stopping():
            self.clear(store)
            return
        marked = dict(self._marked)
        # Read after the marks: a message is received before it is marked.
        requests = {request.message.delivery_tag: request for request in list(state.requests.values())}
        begun = {}
        for tag, request in requests.items():
            run = marked.get(tag)
            if run is None and not request.delivery_info["redelivered"]:
                run = StartedRun(name_run(tag), request.id)
            if request.time_start and run is not None:
                begun[tag] = replace(run, pid=request.worker_pid)
        ended = marked.keys() - requests.keys()
        self._write(store, {tag: run for tag, run in begun.items() if marked.get(tag) != run}, ended)
        self._marked.update(begun)
        for tag in ended:
            self._marked.pop(tag, None)

    def clear(self, store: DeadLetterStore) -> None:
        """Remove all marks, but not where a task has ended this worker; raises redis.RedisError."""
        if has_unasked_quit:
            return
        forget_begun(self._id)
        store.client.delete(store.prefix + self._key)

    def _write(self, store: DeadLetterStore, begun: Mapping[str, StartedRun], ended: Collection[str]) -> None:
        key = store.prefix + self._key
        with store.client.pipeline() as pipe:
            for tag, run in begun.items():
                pipe.hset(key, tag, msgspec.json.encode(run))
            if ended:
                pipe.hdel(key, *ended)
            if self._marked:
                pipe.expire(key, MARKS_KEPT_SECONDS)
            pipe.execute()


def read_in_flight(store: DeadLetterStore, generation_id: str) -> dict[str, StartedRun]:
    """Return the runs that a generation had begun, by delivery tag; raises redis.RedisError."""
    entries: Any = store.client.hgetall(store.prefix + in_flight_key(generation_id))
    runs = {}
    for tag, entry in entries.items():
        # One that cannot be read must not keep what its worker held from being given back.
        with contextlib.suppress(msgspec.DecodeError):
            runs[tag.decode()] = msgspec.json.decode(entry, type=StartedRun)
    return runs


def record_worker_death(channel: Any, generation_id: str, node: str, tags: Iterable[str]) -> None:
    """Record the death of every run that a dead worker had begun, of the messages that it still holds.

    Called before these are given back, as whoever takes one must know. Raises redis.RedisError.
    """
    store = open_dead_letters(channel)
    in_files, held = read_begun(generation_id), set(tags)
    marked = {tag: run for tag, run in read_in_flight(store, generation_id).items() if tag in held}
    # Those in files run, held or not: one that is acknowledged early may have ended the worker too.
    record_ended_runs(store, node, in_files | marked, held)
    forget_begun(generation_id)


def record_ended_runs(
    store: DeadLetterStore, node: str, running: Mapping[str, StartedRun], held: Collection[str]
) -> None:
    """Record as deaths what ran in a worker that died, of what is `held`; raises redis.RedisError."""
    beside = len(running) - 1
    how = "its worker died" + (f", and {beside} more ran there" if beside else "")
    for run in (run for tag, run in running.items() if tag in held):
        death = Death(at=time.time(), how=how, node=node, pid=run.pid, beside=beside)
        store.record_death(run, reported.complete(run.task_id, death))


def is_stopping() -> bool:
    """Return whether this worker was told to stop, warmly or at once."""
    return is_requested(state.should_stop) or is_requested(state.should_terminate)


# Set where QUIT came to a worker that nobody had told to stop: most likely from one of its tasks.
has_unasked_quit = False


def note_quit() -> None:
    """Note an unasked QUIT before Celery handles it: supervisor and platforms stop a worker by TERM or INT."""
    handle = signal.getsignal(signal.SIGQUIT)

    def note(number: int, frame: Any) -> None:
        global has_unasked_quit
        has_unasked_quit |= not is_stopping()
        if callable(handle):
            handle(number, frame)

    signal.signal(signal.SIGQUIT, note)


def is_requested(flag: int | bool | None) -> bool:
    """Return whether a flag of celery.worker.state is set: it is then an exit code, which may be 0."""
    return flag is not None and flag is not False


@dataclass
class Admission:
    """Called in place of a pool's `apply_async`."""

    apply_async: Callable[..., Any]
    node: str
    in_flight: InFlight | None
    # Calls with a task's request after some seconds.
    call_later: Callable[[float, Any], None]
    # For a message's channel.
    open_store: Callable[[Any], DeadLetterStore]
    park: Callable[[Any, DeadLetterStore, int, str], None]
    _alone: Alone = field(default_factory=Alone)

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Start a task, or park it and raise TaskRevokedError, by which Celery takes it for done."""
        on_end, on_failure = options.get("callback"), options.get("error_callback")
        request = getattr(on_failure, "__self__", None)
        if not isinstance(request, Request):
            # Some send a bundle of tasks as one, like celery-batches: their deaths are not recorded.
            return self.apply_async(*args, **options)
        run = name_run(request.message.delivery_tag)
        if request.delivery_info["redelivered"]:
            if (admitted := self._admit(request)) is None:
                return self._wait(request)
            run = admitted
            options["callback"] = partial(self._end, request, on_end)
        elif self._alone.holds_up(request):
            return self._wait(request)
        options["error_callback"] = partial(self._fail, request, run, on_failure)
        return self.apply_async(*args, **options)

    def _admit(self, request: Any) -> str | None:
        """Return the name of the run that begins, None where it must wait.

        Raises TaskRevokedError where the task is parked.
        """
        tag = request.message.delivery_tag
        try:
            store = self.open_store(request.message.channel)
            deaths = store.list_deaths(request.id)
            caused = count_caused(deaths)
            is_poison = caused > 0 and exceeds_limit(caused, read_max_deaths())
            run = StartedRun(name_run(tag, len(deaths)), request.id)
            if not is_poison:
                if self._alone.holds_up(request, is_suspect=len(deaths) - caused >= SUSPICIONS):
                    return None
                if self.in_flight is not None:
                    self.in_flight.mark(store, tag, run)
        except Exception as error:  # Redis is away: nobody can know of any death.
            level = logging.WARNING if is_wrong_type(error) else logging.DEBUG
            logger.log(level, "recyclery:deaths:%s cannot be read: %s", request.id, error)
            return name_run(tag)
        if is_poison:
            self.park(request, store, caused, self.node)
            raise TaskRevokedError(request.id)
        return run.name

    def _wait(self, request: Any) -> None:
        """Try again later; until then it keeps its place in the pool."""
        self.call_later(ALONE_POLL_SECONDS, request)

    def _end(self, request: Any, on_end: Any, result: Any) -> Any:
        """Handle a run's result: the deaths of a task that succeeded are forgotten."""
        failed, _, _ = result
        if not failed:
            try:
                self.open_store(request.message.channel).forget_deaths(request.id)
            except Exception as error:  # Redis is away: they expire by themselves.
                logger.debug("the deaths of %s are not forgotten yet: %s", request.id, error)
        return on_end(result)

    def _fail(self, request: Any, run: str, on_failure: Any, exc_info: Any) -> Any:
        """Handle a run that ended without a result: it is a death if Celery requeues the task for it."""
        reject = request.on_reject

        def record_and_reject(log: Any, errors: Any, requeue: Any = False) -> Any:
            if requeue and not is_stopping():
                self._record_death(request, run, format_end(exc_info))
            return reject(log, errors, requeue)

        request.on_reject = record_and_reject
        return on_failure(exc_info)

    def _record_death(self, request: Any, run: str, how: str) -> None:
        death = Death(at=time.time(), how=how, node=self.node, pid=request.worker_pid)
        try:
            store = self.open_store(request.message.channel)
            store.record_death(StartedRun(run, request.id), reported.complete(request.id, death))
        except Exception as error:  # Redis is away: the message cannot be given back either.
            logger.debug("the death of %s is not recorded: %s", request.id, error)


def format_end(exc_info: Any) -> str:
    # billiard wraps an exception from a child together with its traceback.
    error = getattr(exc_info.exception, "exc", exc_info.exception)
    if isinstance(error, WorkerLostError):
        return str(error).partition(" Job: ")[0].rstrip(".")
    return repr(error)


class AdmissionStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is received."""

    requires = ("celery.worker.components:Pool",)
    # Returns this worker's, which is defined in a layer above; None where it keeps none.
    lease: Callable[[], Any]

    def start(self, parent: Any) -> None:
        held = type(self).lease()
        note_quit()
        in_flight = held and held.in_flight
        count_deaths(parent, in_flight, open_dead_letters, park)


def count_deaths(
    worker: Any,
    in_flight: InFlight | None,
    open_store: Callable[[Any], DeadLetterStore],
    park: Callable[[Any, DeadLetterStore, int, str], None],
) -> None:
    """Have a worker count what its tasks die of, and park those that die too often; see `Admission`."""

    def try_again(request: Any) -> None:
        # Of a connection that is lost since: its message was given back. Since 5.7 Celery leaves our timers.
        if request.message.channel.connection is not None:
            worker._process_task(request)

    def call_later(seconds: float, request: Any) -> None:
        worker.timer.call_after(seconds, try_again, (request,))

    pool = worker.pool
    pool.apply_async = Admission(pool.apply_async, worker.hostname, in_flight, call_later, open_store, park)


def why_not_parked(app: Any, kind: str) -> str:
    """Return why tasks of an app are not parked with a kind of broker; empty where they are."""
    if kind == "redis":
        lack = missing("parking")
        return f"{NOT_PARKED}: {describe_missing('parking')}" if lack else ""
    if kind == "amqp" and uses_redis(app) and not missing("results"):
        return ""
    where = f"only in Redis, as the broker or RabbitMQ's result backend, and the broker is {kind}"
    if app.conf.task_reject_on_worker_lost and is_set(app.conf, "task_reject_on_worker_lost"):
        return f"{NOT_PARKED}: its deaths are counted {where}"
    return f"{NOT_AGAIN}: its deaths can be counted {where}"


def report_death(app: Any, report: DeathReport) -> None:
    """Add the governor's report to a death that is recorded, or will be."""
    if reported.add(report):
        # In a thread, not on the worker's loop, as Redis may not answer.
        threading.Thread(target=complete_recorded, args=(app, report), daemon=True).start()


def complete_recorded(app: Any, report: DeathReport) -> None:
    try:
        with connected(app) as channel:
            open_dead_letters(channel).complete_death(report)
    except Exception as error:  # Redis is away: the death is recorded without the figure.
        logger.debug("the report of the death of %s is not recorded: %s", report.task_id, error)


def park(request: Any, store: DeadLetterStore, deaths: int, node: str) -> None:
    """Park a request's message instead of running it, and have Celery take it for done."""
    # Where Redis fails, the message goes back to its queue, and the next worker tries again.
    channel = request.message.channel
    state.task_ready(request)
    try:
        moved = store.park(parked_task(request, node), channel.unacked_key, channel.unacked_index_key)
    except Exception as error:  # kombu and redis raise errors of many kinds
        logger.error("%s[%s] cannot be parked yet: %s", request.name, request.id, error)
        request.reject(requeue=True)
        return
    if moved:
        failure = Parked(
            f"its process or worker died {times(deaths)} while it ran, so it is parked "
            f"and runs no more by itself; `recyclery parked show {request.id}` tells how, "
            f"`recyclery parked retry {request.id}` or `drop {request.id}` decides"
        )
        logger.error("parked %s[%s]: %s", request.name, request.id, failure)
        publish_failure(request, failure)
    # Frees its slot in this worker; in Redis the message has been moved already.
    request.acknowledge()


def parked_task(request: Any, node: str) -> ParkedTask:
    message = request.message
    channel, payload, delivery = message.channel, message._raw, message.delivery_info
    queues = channel._lookup(delivery["exchange"], delivery["routing_key"])
    priority = channel._get_message_priority(payload, reverse=False)
    stored, raw = as_stored(dumps(payload).encode())
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
        message=stored,
        raw=raw,
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
    why = task.reason or "its process or worker died again and again while it ran"
    failure = Parked(f"{why}, and it was dropped")
    if task.reason or task.type not in app.tasks:
        # Its message cannot be handled, or the app does not know the task any more, so what follows it is not
        # known either.
        app.backend.store_result(task.task_id, failure, states.FAILURE)
        return True
    item = bytes(task.message) if task.raw is None else task.raw
    message = channel.Message(loads(item.decode()), channel=channel)
    request: Any = Request(message, app=app, task=app.tasks[task.type])
    request.task.backend.mark_as_failure(
        task.task_id, failure, request=request._context, store_result=request.store_errors
    )
    return True
