"""pools_app: not a benchmark; the Celery app whose queues pools shares out to two workers, then to three."""

from __future__ import annotations

import functools
import os
import struct
import time

import redis
from celery import Celery

from benchmarks.workers import make_client

# One for each queue.
STAMPS = "bench:stamps:{}"
# When it was sent and when it began (CLOCK_MONOTONIC).
STAMP = "dd"

url = os.environ.get("REDIS_URL", "")
app = Celery("bench", broker=url)
app.conf.update(task_ignore_result=True)


@functools.cache
def client() -> redis.Redis:
    """The Redis of this pool child."""
    return make_client(url)


@app.task
def work(queue: str, sent: float, seconds: float) -> None:
    """Note when this began, in one write; take so long."""
    client().rpush(STAMPS.format(queue), struct.pack(STAMP, sent, time.monotonic()))
    time.sleep(seconds)
