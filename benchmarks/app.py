"""app: not a benchmark; the Celery app the benchmarks run."""

from __future__ import annotations

import functools
import os
import struct
import time

import redis
from celery import Celery

url = os.environ.get("BENCH_REDIS_URL", "")
app = Celery("bench", broker=url)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=4,
    task_default_queue="bench",
)


@functools.cache
def client() -> redis.Redis:
    """The Redis of this pool child."""
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))


@app.task
def note() -> None:
    """Note when this ran and in which child, in one write: seconds (CLOCK_MONOTONIC) and pid."""
    client().rpush("bench:notes", struct.pack("dq", time.monotonic(), os.getpid()))


@app.task
def noop() -> None:
    """Do nothing."""
