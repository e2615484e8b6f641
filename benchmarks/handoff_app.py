"""handoff_app: not a benchmark; the Celery app whose worker handoff replaces."""

from __future__ import annotations

import functools
import os
import struct
import time
from typing import Any

import redis
from celery import Celery, signals

STAMPS = "bench:stamps"
# When workers were told to leave, by the clock of Redis.
LEAVES = "bench:leaves"
# Number, when it was sent and when it began (CLOCK_MONOTONIC).
STAMP = "qdd"

url = os.environ.get("REDIS_URL", "")
app = Celery("bench", broker=url)
app.conf.update(task_ignore_result=True)


@functools.cache
def client() -> redis.Redis:
    """The Redis of this pool child."""
    return redis.Redis.from_url(url)


@signals.worker_shutting_down.connect
def note_leaving(**_: Any) -> None:
    """Note when this worker was told to leave; it consumes until then."""
    with redis.Redis.from_url(url) as own:
        own.rpush(LEAVES, repr(time.time()))


@app.task
def stamp(number: int, sent: float) -> None:
    """Note when this began, in one write."""
    client().rpush(STAMPS, struct.pack(STAMP, number, sent, time.monotonic()))
