"""Waits for the broker before the worker connects, so that it starts within a second of the broker's coming.

Celery's own wait backs off to 32 s between tries (kombu's `ensure_connection`).
"""

from __future__ import annotations

import time
from typing import Any

from celery import bootsteps
from celery.utils.log import get_logger
from celery.worker import state
from kombu.utils.url import maybe_sanitize_url

logger = get_logger(__name__)

TRY_EVERY_SECONDS = 1.0
SAY_EVERY_SECONDS = 5.0


class BrokerWait(bootsteps.StartStopStep):
    """Worker bootstep, started after the pool and before the consumer."""

    requires = ("celery.worker.components:Pool",)

    def start(self, parent: Any) -> None:
        """Return when the broker answers, or when the worker is asked to stop."""
        said: float | None = None
        while True:
            state.maybe_shutdown()
            problem = try_broker(parent.app)
            if problem is None:
                if said is not None:
                    logger.warning("broker answers: going on")
                return
            if said is None or time.monotonic() - said >= SAY_EVERY_SECONDS:
                said = time.monotonic()
                logger.warning("waiting for the broker at %s", problem)
            time.sleep(TRY_EVERY_SECONDS)


def try_broker(app: Any) -> str | None:
    """Return None if the broker answers, else its address without secrets and what went wrong."""
    with app.connection_for_read() as connection:
        try:
            connection.connect()
        except Exception as error:  # transports raise errors of their own kinds
            recoverable = connection.recoverable_connection_errors
            if not isinstance(error, (OSError, *recoverable)):
                raise
            return f"{maybe_sanitize_url(connection.as_uri())}: {error}"
    return None
