"""A Celery app to tune: it keeps results, knows its own queues alone, and its tasks send others."""

import json
import os
import time
from collections.abc import Iterator

from celery import Celery, chain, chord
from kombu import Queue

url = os.environ["REDIS_URL"]
app = Celery("tuned", broker=url, backend=os.environ.get("PLAIN_URL", url))
app.conf.broker_transport_options = json.loads(os.environ.get("TRANSPORT_OPTIONS", "{}"))
app.conf.task_queues = [Queue("high"), Queue("low")]
app.conf.task_default_queue = "low"
app.conf.task_create_missing_queues = False
app.conf.task_store_errors_even_if_ignored = True
app.conf.task_send_sent_event = True
app.conf.broker_connection_retry_on_startup = True


@app.task
def nap(seconds: float) -> float:
    """Sleep."""
    time.sleep(seconds)
    return seconds


@app.task
def send_others(seconds: float) -> None:
    """Sleep, and send tasks in every way there is."""
    time.sleep(seconds)
    nap.delay(1)
    nap.apply_async((1,), queue="high", countdown=60, priority=3)
    chain(nap.si(1), nap.si(2)).delay()
    chord([nap.si(1), nap.si(2)])(nap.si(3))
    with app.connection_for_write() as connection, connection.SimpleQueue("high") as plain:
        plain.put("not a task")


@app.task
def fail(seconds: float) -> None:
    """Sleep, and fail."""
    time.sleep(seconds)
    raise ValueError("as it was asked to")


def naps() -> Iterator[list[float]]:
    """Yield arguments."""
    yield [0.05]
