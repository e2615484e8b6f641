"""Waits for the broker before the worker connects, so that it goes on within a second or two of its coming.

Celery's own wait backs off to 32 s between tries (kombu's `ensure_connection`), and has no bound for a Redis
that takes the connection and answers nothing.
"""

from __future__ import annotations

import time
from typing import Any

import redis
from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.utils.url import maybe_sanitize_url

from recyclery_worker.broker.connection import BOUNDED, open_redis

logger = get_logger(__name__)

TRY_EVERY_SECONDS = 1.0
SAY_EVERY_SECONDS = 60.0
# A write that makes nothing and is refused where others are: a Redis that takes none is of no use to a worker.
PROBE = "recyclery:probe"


class BrokerWait(bootsteps.StartStopStep):
    """Worker bootstep, started after the pool and before the consumer."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Return when the broker answers, or when the worker is asked to stop."""
        wait_for_broker(parent.app)


class BrokerReturn(bootsteps.StartStopStep):
    """Consumer bootstep, for a connection that was lost."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def stop(self, parent: Any) -> None:
        """Return when the broker answers; at once where the worker ends, or was never connected."""
        ends: Any = bootsteps
        # In this state the steps are about to be started again (celery, Consumer.start).
        if parent.blueprint.state == ends.RUN:
            wait_for_broker(parent.app)


def wait_for_broker(app: Any) -> None:
    """Return when the broker answers; raises what ends a Celery worker when that is told to stop."""
    began = time.monotonic()
    said: float | None = None
    while True:
        state.maybe_shutdown()
        problem = try_broker(app)
        if problem is None:
            if said is not None:
                logger.warning("broker answers after %.0f s: going on", time.monotonic() - began)
            return
        if said is None or time.monotonic() - said >= SAY_EVERY_SECONDS:
            said = time.monotonic()
            logger.warning("waiting for the broker at %s", problem)
        time.sleep(TRY_EVERY_SECONDS)


def try_broker(app: Any) -> str | None:
    """Return None if the broker answers, else its address without secrets and what went wrong."""
    with app.connection_for_read() as connection:
        is_redis = connection.transport.driver_type == "redis"
        if is_redis:
            connection.transport_options |= BOUNDED
        try:
            connection.connect()
            if is_redis:
                try_write(connection.default_channel)
        except Exception as error:  # transports raise errors of their own kinds
            recoverable = connection.recoverable_connection_errors
            if not isinstance(error, (OSError, redis.ResponseError, *recoverable)):
                raise
            # Sentinel's error goes on with the whole client, its options and password among them.
            what = str(error).partition(" : <")[0]
            return f"{maybe_sanitize_url(connection.as_uri())}: {what}"
    return None


def try_write(channel: Any) -> None:
    """Raise what Redis says where it takes no writes: a replica, or one that is out of memory or disk."""
    client, prefix = open_redis(channel)
    try:
        client.setrange(prefix + PROBE, 0, "")
    except redis.exceptions.NoPermissionError:
        # A user whose rights are counted out may lack this one and have all that Celery needs.
        return
