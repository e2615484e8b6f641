"""The Celery app whose tasks use what Celery offers beyond running; it knows nothing of Recyclery."""

import json
import os
import time
from pathlib import Path
from typing import Any

import redis
from celery import Celery, Task, signals
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker.request import Request

url = os.environ["REDIS_URL"]
app = Celery("fit", broker=url, backend=url)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool_restarts=True,
    broker_connection_retry_on_startup=True,
)


def note(event: str, **facts: object) -> None:
    """Append to the list `fit:notes` what happened, and in which process."""
    with redis.Redis.from_url(url) as client:
        client.rpush("fit:notes", json.dumps({"event": event, "pid": os.getpid(), **facts}))


@signals.worker_process_init.connect
def on_init(**_: object) -> None:
    """Note it, and whether this process leads its session."""
    note("init", leads=os.getsid(0) == os.getpid())


@signals.worker_process_shutdown.connect
def on_shutdown(**_: object) -> None:
    """Note it."""
    note("shutdown")


@signals.task_prerun.connect
def on_prerun(**_: object) -> None:
    """Note it."""
    note("prerun")


@signals.task_postrun.connect
def on_postrun(**_: object) -> None:
    """Note it."""
    note("postrun")


class NotingRequest(Request):
    """Notes, in the worker's main process, what it is told of its task."""

    def on_accepted(self, pid: Any, time_accepted: float) -> None:
        """Note it."""
        note("request accepted")
        super().on_accepted(pid, time_accepted)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Note it."""
        note("request timeout")
        super().on_timeout(soft, timeout)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """Note it."""
        note("request failure")
        super().on_failure(exc_info, send_failed_event, return_ok)


class NotingTask(Task):  # type: ignore[type-arg]
    """Notes, in the pool child, what it goes through."""

    Request = f"{__name__}:NotingRequest"

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Note it."""
        note("task before_start")

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Note it."""
        note("task on_success")


@app.task(base=NotingTask)
def custom(seconds: float) -> int:
    """Sleep, and return the pool child's pid."""
    time.sleep(seconds)
    return os.getpid()


@app.task
def child() -> int:
    """Return the pool child's pid."""
    return os.getpid()


@app.task
def outstay(path: str) -> int:
    """Stay until the soft time limit, clean up, and return the pool child's pid."""
    try:
        time.sleep(600)
    except SoftTimeLimitExceeded:
        Path(path).touch()
    return os.getpid()


class Refusal(Exception):
    """What a task that is to be tried again raises."""


@app.task(bind=True, autoretry_for=(Refusal,), max_retries=4, default_retry_delay=0)
def persist(self: Any, tries: int) -> int:
    """Fail `tries` times; return how often this was tried again."""
    note("try")
    if self.request.retries < tries:
        raise Refusal
    retries: int = self.request.retries
    return retries


@app.task(rate_limit="5/s")
def rated() -> float:
    """Return when this ran."""
    return time.monotonic()
