"""A pytest plugin: the worker of Celery's integration tests is `celery worker`, and no thread beside them."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.contrib.testing import worker
from celery.utils.nodenames import anon_nodename

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@contextmanager
def start_worker(
    app: Any, concurrency: int = 1, pool: str = "prefork", **_: Any
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a worker until the block ends; see `celery.contrib.testing.worker.start_worker`."""
    command = [
        "celery",
        "-A",
        "celery_suites.suite_app",
        "worker",
        "-P",
        pool,
        "-c",
        str(concurrency),
        "-n",
        anon_nodename(),
    ]
    command += ["--without-mingle", "--without-gossip", "--without-heartbeat", "-l", "info"]
    process = subprocess.Popen(command)
    try:
        app.set_current()
        app.set_default()
        assert (
            app.tasks["celery.ping"].delay().get(timeout=START_SECONDS, disable_sync_subtasks=False) == "pong"
        )
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


patched: Any = worker
patched.start_worker = start_worker
