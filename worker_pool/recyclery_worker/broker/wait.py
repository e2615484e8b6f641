"""Waits for the broker before the worker connects, so that it goes on within a second or two of its return.

Celery's own wait backs off to 32 s between tries (kombu's `ensure_connection`), and has no timeout for a Redis
that accepts the connection and never answers.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import bootsteps
from celery.exceptions import WorkerShutdown
from celery.platforms import EX_FAILURE
from celery.utils.log import get_logger
from celery.worker import state
from kombu.utils.url import maybe_sanitize_url

from recyclery_worker.broker.client_limit import client_limit
from recyclery_worker.broker.connection import (
    BOUNDED_BY_KIND,
    connect,
    describe_failure,
    is_wrong_type,
    open_redis,
)

logger = get_logger(__name__)

TRY_SECONDS = 1.0
LOG_SECONDS = 60.0
# A write that creates nothing, and is refused where others are: a Redis that takes none is of no use.
PROBE = "recyclery:probe"


class BrokerWait(bootsteps.StartStopStep):
    """Worker bootstep, started after the pool and before the consumer."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Return when the broker answers; raises WorkerShutdown where the app does not want to wait."""
        if (setting := name_of_no_retry(parent.app.conf)) and (problem := try_broker(parent.app)) is not None:
            # In Celery's words, by which its users find it.
            logger.critical(
                "Retrying to establish a connection to the message broker after a connection loss has been "
                "disabled (app.conf.%s=False). Shutting down... %s",
                setting,
                problem,
            )
            raise WorkerShutdown(EX_FAILURE)
        wait_for_broker(parent.app)


class BrokerReturn(bootsteps.StartStopStep):
    """Consumer bootstep, for a connection that was lost."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def stop(self, parent: Any) -> None:
        """Return when the broker answers; at once where the worker ends, or was never connected."""
        # In this state the steps are about to be started again (celery, Consumer.start).
        if parent.blueprint.state == bootsteps.RUN:  # type: ignore[attr-defined]
            # What lost it: we are called while Celery handles that.
            client_limit.look_at(sys.exception())
            wait_for_broker(parent.app)


def name_of_no_retry(conf: Any) -> str:
    """Return the setting by which an app has Celery not try again to connect at its start; empty if none."""
    at_start, at_any_time = "broker_connection_retry_on_startup", "broker_connection_retry"
    setting = at_any_time if conf[at_start] is None else at_start
    return "" if conf[setting] else setting


def wait_for_broker(app: Any) -> None:
    """Return when the broker answers; raises what ends a Celery worker that is told to stop."""
    began = time.monotonic()
    if wait_until(lambda: try_broker(app), "waiting for the broker at %s"):
        logger.warning("broker answers after %.0f s: going on", time.monotonic() - began)


def wait_until(attempt: Callable[[], str | None], message: str) -> bool:
    """Repeat an attempt until it returns None instead of a problem, which is logged; return whether one was."""
    logged: float | None = None
    while True:
        state.maybe_shutdown()  # This raises what ends a Celery worker.
        if (problem := attempt()) is None:
            return logged is not None
        if logged is None or time.monotonic() - logged >= LOG_SECONDS:
            logged = time.monotonic()
            logger.warning(message, problem)
        time.sleep(TRY_SECONDS)


def try_broker(app: Any) -> str | None:
    """Return None if the broker answers, else its address without secrets and what went wrong."""
    with app.connection_for_read() as connection:
        is_redis = connection.transport.driver_type == "redis"
        connection.transport_options |= BOUNDED_BY_KIND.get(connection.transport.driver_type, {})
        try:
            connect(connection)
            if is_redis:
                try_write(connection.default_channel)
        except Exception as error:  # transports raise errors of their own kinds
            recoverable = connection.recoverable_connection_errors
            if not isinstance(error, (OSError, redis.ResponseError, *recoverable)):
                raise
            return f"{maybe_sanitize_url(connection.as_uri())}: {describe_failure(error)}"
    return None


def try_write(channel: Any) -> None:
    """Raise Redis's error where it takes no writes: a replica, or one that is out of memory or disk."""
    client, prefix = open_redis(channel)
    # A user with an explicit list of rights may lack this one and have all that Celery needs.
    with contextlib.suppress(redis.exceptions.NoPermissionError):
        try:
            client.setrange(prefix + PROBE, 0, "")
        except redis.ResponseError as error:
            # Somebody has written there: Redis looks at the key only where it takes writes.
            if not is_wrong_type(error):
                raise
