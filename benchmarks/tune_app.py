"""tune_app: not a benchmark; tasks whose best concurrency is known by how they are made."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from celery import Celery

app = Celery("tuned", broker=os.environ.get("REDIS_URL", "redis://"))
app.conf.broker_connection_retry_on_startup = True


@app.task
def burn(cpu_seconds: float) -> None:
    """Use so much CPU: as many at a time as there are cores."""
    until = time.process_time() + cpu_seconds
    while time.process_time() < until:
        sum(range(1000))


@app.task
def sleep(seconds: float) -> None:
    """Wait for somebody else: the more at a time the better."""
    time.sleep(seconds)


@app.task
def hold(seconds: float, size_bytes: int) -> int:
    """Wait with memory in hand: as many at a time as fit."""
    held = b"x" * size_bytes
    time.sleep(seconds)
    return len(held)


@app.task
def queue_up(seconds: float, path: str) -> None:
    """Wait with a lock that all need: one at a time."""
    with Path(path).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        time.sleep(seconds)
