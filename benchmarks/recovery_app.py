"""recovery_app: not a benchmark; the Celery app whose one task notes each start and waits to be let go."""

from __future__ import annotations

import json
import os
import time

import redis
from celery import Celery

url = os.environ.get("BENCH_REDIS_URL", "")
app = Celery("recovery", broker=url)
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
# A task that nobody lets go ends all the same.
HOLD_SECONDS = 600


@app.task
def hold(number: int) -> None:
    """Note when it began and where, and wait until `release:NUMBER` has something."""
    client = redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"), socket_timeout=None)
    begun = {
        "at": time.clock_gettime(time.CLOCK_BOOTTIME),
        "child": os.getpid(),
        "main": os.getppid(),
        "container": os.environ["BENCH_CONTAINER"],
    }
    client.rpush(f"begun:{number}", json.dumps(begun))
    client.blpop([f"release:{number}"], timeout=HOLD_SECONDS)
