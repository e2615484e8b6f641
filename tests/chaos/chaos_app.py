"""The Celery app that runs under faults: each task notes its beginning and its end in one file."""

import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from celery import Celery

app = Celery("chaos", broker=os.environ["REDIS_URL"])
app.conf.update(task_ignore_result=True, broker_connection_retry_on_startup=True)


@contextmanager
def noted(task: int) -> Iterator[None]:
    """Write down a run's beginning, and its end if it comes to that; one without its browser fails."""
    run = secrets.token_hex(6)
    note("begin", task, run)
    try:
        yield
    except Exception:
        note("fail", task, run)
        raise
    note("end", task, run)


def note(what: str, task: int, run: str) -> None:
    """Append one line, whole or not at all."""
    line = {
        "what": what,
        "task": task,
        "run": run,
        "box": os.environ["CHAOS_BOX"],
        "main": os.getppid(),
        "child": os.getpid(),
        "at": time.clock_gettime(time.CLOCK_BOOTTIME),
        "clock_off": time.time() - time.clock_gettime(time.CLOCK_REALTIME),
    }
    with open(os.environ["CHAOS_RUNS"], "ab", buffering=0) as file:  # noqa: PTH123  # one write, unbuffered
        file.write(json.dumps(line).encode() + b"\n")


@app.task
def count(task: int) -> None:
    """Do nothing but be counted."""
    with noted(task):
        pass


@app.task
def linger(task: int, seconds: float) -> None:
    """Take a while."""
    with noted(task):
        time.sleep(seconds)


@app.task
def exhaust(task: int) -> None:
    """Ask for more memory than there is, which raises MemoryError."""
    with noted(task):
        bytearray(1 << 60)


@app.task
def burst(task: int, size_bytes: int, marker: str) -> None:
    """Take much memory for some seconds, the first time it runs."""
    with noted(task):
        if not Path(marker).exists():
            Path(marker).touch()
            taken = b"x" * size_bytes
            time.sleep(3)
            del taken


@app.task
def browse(task: int) -> None:
    """Look at a page with a real browser."""
    from recyclery_worker.browser import browser

    with noted(task), browser() as driver:
        driver.get("data:text/html,<h1>text</h1>")
        time.sleep(0.5)
