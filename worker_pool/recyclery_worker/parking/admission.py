"""Admits tasks to the pool: parks those that have killed their process too often, and records deaths.

The main process decides, just before it would hand the task to a child. Redis is asked only about redelivered
messages.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps
from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.utils.log import get_logger
from celery.worker.request import Request

from recyclery_worker.broker.connection import broker_kind, connected
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.link import DEFAULT_MAX_DEATHS, DeathReport
from recyclery_worker.parking.deaths import InFlight, is_terminating, reported
from recyclery_worker.parking.park import park
from recyclery_worker.parking.records import Death, StartedRun, name_run
from recyclery_worker.parking.store import open_dead_letters

logger = get_logger(__name__)


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
    try:
        content = Path(os.environ.get("RECYCLERY_RUNTIME_DIR", ""), "settings.json").read_bytes()
        pools = msgspec.json.decode(content, type=Limits).pools
    except (OSError, msgspec.DecodeError):
        pools = []
    own = [pool.max_task_deaths for pool in pools if pool.name == os.environ.get("RECYCLERY_POOL")]
    return own[0] if own else DEFAULT_MAX_DEATHS


@dataclass
class Admission:
    """Called in place of a pool's `apply_async`."""

    apply_async: Callable[..., Any]
    node: str
    in_flight: InFlight | None

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Start a task, or park it and raise TaskRevokedError, by which Celery takes it for done."""
        on_end: Any = options.get("callback")
        on_failure: Any = options.get("error_callback")
        request = getattr(on_failure, "__self__", None)
        if not isinstance(request, Request):
            # Some send a bundle of tasks as one, like celery-batches: their deaths are not recorded.
            return self.apply_async(*args, **options)
        run = name_run(request.message.delivery_tag)
        if request.delivery_info["redelivered"]:
            run = self._admit(request)
            options["callback"] = partial(self._end, request, on_end)
        options["error_callback"] = partial(self._fail, request, run, on_failure)
        return self.apply_async(*args, **options)

    def _admit(self, request: Any) -> str:
        """Return the name of the run that begins; raises TaskRevokedError where the task is parked."""
        tag = request.message.delivery_tag
        try:
            store = open_dead_letters(request.message.channel)
            deaths = store.count_deaths(request.id)
            is_poison = deaths > 0 and exceeds_limit(deaths, read_max_deaths())
            run = StartedRun(name_run(tag, deaths), request.id)
            if not is_poison and self.in_flight is not None:
                self.in_flight.mark(store, tag, run)
        except Exception as error:  # Redis is away: nobody can know of any death.
            logger.debug("the deaths of %s cannot be read: %s", request.id, error)
            return name_run(tag)
        if is_poison:
            park(request, store, deaths, self.node)
            raise TaskRevokedError(request.id)
        return run.name

    def _end(self, request: Any, on_end: Callable[..., Any], result: Any) -> Any:
        """Handle a run's result: the deaths of a task that succeeded are forgotten."""
        failed, _, _ = result
        if not failed:
            try:
                open_dead_letters(request.message.channel).forget_deaths(request.id)
            except Exception as error:  # Redis is away: they expire by themselves.
                logger.debug("the deaths of %s are not forgotten yet: %s", request.id, error)
        return on_end(result)

    def _fail(self, request: Any, run: str, on_failure: Callable[..., Any], exc_info: Any) -> Any:
        """Handle a run that ended without a result: it is a death if Celery requeues the task for it."""
        reject = request.on_reject

        def record_and_reject(log: Any, errors: Any, requeue: Any = False) -> Any:
            if requeue and not is_terminating():
                self._record_death(request, run, format_end(exc_info))
            return reject(log, errors, requeue)

        request.on_reject = record_and_reject
        return on_failure(exc_info)

    def _record_death(self, request: Any, run: str, how: str) -> None:
        death = Death(at=time.time(), how=how, node=self.node, pid=request.worker_pid)
        try:
            store = open_dead_letters(request.message.channel)
            store.record_death(StartedRun(run, request.id), reported.complete(request.id, death))
        except Exception as error:  # Redis is away: the message cannot be given back either.
            logger.debug("the death of %s is not recorded: %s", request.id, error)


def format_end(exc_info: Any) -> str:
    """Return how a run ended, as far as Celery knows."""
    # billiard wraps an exception from a child together with its traceback.
    error = getattr(exc_info.exception, "exc", exc_info.exception)
    if isinstance(error, WorkerLostError):
        return str(error).partition(" Job: ")[0].rstrip(".")
    return repr(error)


class AdmissionStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is received."""

    requires = ("celery.worker.components:Pool",)
    in_flight: Callable[[], InFlight | None]

    def start(self, parent: Any) -> None:
        """Admit tasks to the pool, of whichever kind it is."""
        parent.pool.apply_async = Admission(parent.pool.apply_async, parent.hostname, type(self).in_flight())


def why_not_parked(app: Any) -> str:
    """Return why tasks of an app are not parked; empty where they are."""
    kind = broker_kind(app)
    if kind == "redis" and not missing("parking"):
        return ""
    why = describe_missing("parking") if kind == "redis" else f"only with Redis as the broker, and it is {kind}"
    return f"a task that keeps killing its process is not parked: {why}"


def report_death(app: Any, report: DeathReport) -> None:
    """Add the governor's report to a death that is recorded, or will be."""
    if reported.add(report):
        # In a thread, not on the worker's loop, as Redis may not answer.
        threading.Thread(target=complete_recorded, args=(app, report), daemon=True).start()


def complete_recorded(app: Any, report: DeathReport) -> None:
    """Add the governor's report to a death that is in Redis already."""
    try:
        with connected(app) as channel:
            open_dead_letters(channel).complete_death(report)
    except Exception as error:  # Redis is away: the death is recorded without the figure.
        logger.debug("the report of the death of %s is not recorded: %s", report.task_id, error)
