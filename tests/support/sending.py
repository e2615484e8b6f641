"""A producer of tasks that can be thrown away."""

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery

NUMBERS = itertools.count()


@contextmanager
def sending_to(url: str) -> Iterator[Celery]:
    """Yield a producer for a Redis: send_task("sample_app.add", (1, 2), queue="high")."""
    app = Celery("sender", broker=url, backend=url)
    # A result that is collected when its Redis is gone would else try for ever to say so there.
    app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    # kombu shares the connections of equal brokers, among them those that another test had the server close.
    app.conf.broker_transport_options = {"sender": next(NUMBERS)}
    yield app
    pool: Any = app.pool
    pool.force_close_all()
    gc.collect()
    app.close()
