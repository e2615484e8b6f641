"""Stands before the pool: keeps back a task that has died too often, and notes the death of one that runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from celery import bootsteps
from celery.exceptions import TaskRevokedError, WorkerLostError
from celery.utils.log import get_logger
from celery.worker import state
from celery.worker.request import Request

from recyclery_worker.broker.connection import broker_kind, connected
from recyclery_worker.compat import describe_missing, missing
from recyclery_worker.link import Fell
from recyclery_worker.parking.deaths import Starts, seen
from recyclery_worker.parking.park import park
from recyclery_worker.parking.records import Death, Run, name_run
from recyclery_worker.parking.store import open_lot

DEFAULT_MAX_DEATHS = 3


class PoolLimit(msgspec.Struct):
    """What of a pool's settings matters here."""

    name: str
    max_task_deaths: int = DEFAULT_MAX_DEATHS


class Limits(msgspec.Struct):
    """The settings in force, as far as they matter here."""

    pools: list[PoolLimit] = []


def is_to_be_parked(deaths: int, max_deaths: int) -> bool:
    """Tell whether a task that died so often is to run no more; a limit of 0 is none."""
    return 0 < max_deaths <= deaths


def read_max_deaths() -> int:
    """Return this pool's limit as it is now: the supervisor's settings may change while we run."""
    pool = os.environ.get("RECYCLERY_POOL")
    try:
        content = Path(os.environ.get("RECYCLERY_RUNTIME_DIR", ""), "settings.json").read_bytes()
        pools = msgspec.json.decode(content, type=Limits).pools
    except (OSError, msgspec.DecodeError):
        return DEFAULT_MAX_DEATHS
    return next((found.max_task_deaths for found in pools if found.name == pool), DEFAULT_MAX_DEATHS)


logger = get_logger(__name__)


class Gate:
    """Stands for a pool's `apply_async`. Redis is asked only about messages that were redelivered."""

    def __init__(self, apply_async: Callable[..., Any], node: str, starts: Starts | None) -> None:
        self._apply_async = apply_async
        self._node = node
        self._starts = starts

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Start a task; raises TaskRevokedError, by which Celery takes it for done, where it is parked."""
        report_end: Any = options.get("callback")
        report_failure: Any = options.get("error_callback")
        request = getattr(report_failure, "__self__", None)
        if not isinstance(request, Request):
            # Some send a bundle of tasks as one, as celery-batches does: nobody is told of their deaths.
            return self._apply_async(*args, **options)
        run = name_run(request.message.delivery_tag)
        if request.delivery_info["redelivered"]:
            run = self._admit(request)
            options["callback"] = partial(self._finish, request, report_end)
        options["error_callback"] = partial(self._fail, request, run, report_failure)
        return self._apply_async(*args, **options)

    def _admit(self, request: Any) -> str:
        """Return the name of the run that begins; raises TaskRevokedError where none does."""
        tag = request.message.delivery_tag
        try:
            lot = open_lot(request.message.channel)
            deaths = lot.count_deaths(request.id)
            is_poison = deaths > 0 and is_to_be_parked(deaths, read_max_deaths())
            run = Run(name_run(tag, deaths), request.id)
            if not is_poison and self._starts is not None:
                self._starts.mark(lot, tag, run)
        except Exception as error:  # Redis is away: without it nobody knows of any death.
            logger.debug("the deaths of %s cannot be looked at: %s", request.id, error)
            return name_run(tag)
        if is_poison:
            park(request, lot, deaths, self._node)
            raise TaskRevokedError(request.id)
        return run.name

    def _finish(self, request: Any, report_end: Callable[..., Any], result: Any) -> Any:
        """Take in that a run ended by its own word: one that succeeded was no poison."""
        failed, _, _ = result
        if not failed:
            try:
                open_lot(request.message.channel).forget_deaths(request.id)
            except Exception as error:  # Redis is away: they are forgotten with time.
                logger.debug("the deaths of %s are not forgotten yet: %s", request.id, error)
        return report_end(result)

    def _fail(self, request: Any, run: str, report_failure: Callable[..., Any], exc_info: Any) -> Any:
        """Take in that a run ended without a word of its own: a death, if Celery has it run again for that."""
        reject = request.on_reject

        def note_and_reject(log: Any, errors: Any, requeue: Any = False) -> Any:
            if requeue and not is_cut_off():
                self._note(request, run, describe_end(exc_info))
            return reject(log, errors, requeue)

        request.on_reject = note_and_reject
        return report_failure(exc_info)

    def _note(self, request: Any, run: str, how: str) -> None:
        death = Death(at=time.time(), how=how, node=self._node, pid=request.worker_pid)
        try:
            lot = open_lot(request.message.channel)
            lot.note_death(Run(run, request.id), seen.complete(request.id, death))
        except Exception as error:  # Redis is away: the message cannot be given back either.
            logger.debug("the death of %s is not noted: %s", request.id, error)


def describe_end(exc_info: Any) -> str:
    """Say how a run ended, as Celery knows it."""
    # billiard wraps an exception that came from a child together with its traceback.
    error = getattr(exc_info.exception, "exc", exc_info.exception)
    if isinstance(error, WorkerLostError):
        return str(error).partition(" Job: ")[0].rstrip(".")
    return repr(error)


def is_cut_off() -> bool:
    """Tell whether this worker kills its own tasks, as it was told to."""
    return state.should_terminate is not None and state.should_terminate is not False


class GateStep(bootsteps.StartStopStep):
    """Worker bootstep: before the first message is taken."""

    requires = ("celery.worker.components:Pool",)
    starts: Callable[[], Starts | None]

    def start(self, parent: Any) -> None:
        """Stand before the pool, of whichever kind."""
        parent.pool.apply_async = Gate(parent.pool.apply_async, parent.hostname, type(self).starts())


def describe_lack(app: Any) -> str:
    """Say why tasks of an app's broker are not parked; empty where they are."""
    kind = broker_kind(app)
    if kind == "redis" and not missing("parking"):
        return ""
    why = describe_missing("parking") if kind == "redis" else f"only with Redis as the broker, and it is {kind}"
    return f"a task that keeps killing its process is not parked: {why}"


def note_fell(app: Any, fell: Fell) -> None:
    """Add what the governor saw to a death that is noted, or will be."""
    if seen.hear(fell):
        # Not on the worker's loop: Redis may not answer.
        threading.Thread(target=complete_noted, args=(app, fell), daemon=True).start()


def complete_noted(app: Any, fell: Fell) -> None:
    """Add what the governor saw to a death that is in Redis already."""
    try:
        with connected(app) as channel:
            open_lot(channel).complete_death(fell)
    except Exception as error:  # Redis is away: it is a figure less for whoever looks.
        logger.debug("what was seen of %s is not noted: %s", fell.task_id, error)
