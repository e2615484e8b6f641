"""trace_overhead_app: not a benchmark; the Celery app whose tasks are run with and without tracing."""

from __future__ import annotations

import functools
import json
import os
import time

import redis
from celery import Celery

url = os.environ.get("BENCH_REDIS_URL", "")
app = Celery("traced", broker=url)
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1)

LEFT_BYTES = 200_000
# Where each run notes how long it took.
SECONDS = "bench:seconds"
kept: list[bytes] = []


@functools.cache
def client() -> redis.Redis:
    """The Redis of this pool child."""
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))


@app.task
def parse() -> None:
    """Make and drop half a million small objects, which tracing slows down most; keep some memory."""
    begun = time.monotonic()
    rows = [{"number": number, "words": [str(number)] * 5} for number in range(40_000)]
    json.loads(json.dumps(rows))
    kept.append(bytes(LEFT_BYTES))
    client().rpush(SECONDS, time.monotonic() - begun)


@app.task
def wait() -> None:
    """Wait as a task with a browser does, read a page now and then, and keep some memory."""
    begun = time.monotonic()
    for _ in range(10):
        time.sleep(0.05)
        json.loads(json.dumps(list(range(1_000))))
    kept.append(bytes(LEFT_BYTES))
    client().rpush(SECONDS, time.monotonic() - begun)
