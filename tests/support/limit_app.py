"""An app whose tasks hold memory and end in different ways when they are told that it is too much."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

from celery import Celery

url = os.environ["REDIS_URL"]
app = Celery("limit", broker=url, backend=url)
app.conf.broker_connection_retry_on_startup = True
# Held by the main process too, which forks the children.
preloaded = b"x" * int(os.environ.get("PRELOADED_BYTES", "0"))


@app.task
def child() -> int:
    """Return the pool child's pid."""
    return os.getpid()


@app.task
def hold(size_bytes: int, path: str) -> int:
    """Hold memory until a file is there, mark each run in another, and return the pool child's pid."""
    mark(path)
    held = b"x" * size_bytes
    wait_for_file(path)
    del held
    return os.getpid()


@app.task
def roomy(size_bytes: int, path: str) -> int:
    """Do the same, by a name of its own."""
    pid: int = hold(size_bytes, path)
    return pid


@app.task(acks_on_failure_or_timeout=False)
def hold_in_c(size_bytes: int, path: str) -> None:
    """Hold memory in a C function that never returns, so that Python runs no signal handler."""
    mark(path)
    held = b"x" * size_bytes
    mutex = ctypes.create_string_buffer(128)
    # The second time it waits for itself.
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
    del held


@app.task
def hold_on(size_bytes: int, path: str) -> None:
    """Hold memory, note the name of any exception, and go on."""
    mark(path)
    held = b"x" * size_bytes
    while True:
        try:
            time.sleep(600)
        except Exception as error:
            Path(f"{path}.caught").write_text(type(error).__name__)
    del held


@app.task
def hold_elsewhere(size_bytes: int, path: str) -> None:
    """Start a program that holds memory, note its pid, and wait for it."""
    mark(path)
    code = f"held = b'x' * {size_bytes}; import time; time.sleep(600)"
    program = subprocess.Popen([sys.executable, "-c", code])
    Path(f"{path}.program").write_text(str(program.pid))
    program.wait()


@app.task
def browse(path: str) -> None:
    """Open a browser, and leave it when a file is there."""
    from recyclery_worker.browser import browser

    with browser() as driver:
        driver.get("data:text/html,<h1>text</h1>")
        wait_for_file(path)


@app.task
def fork(size_bytes: int, count: int, path: str) -> None:
    """Hold memory that this many forked processes share, until a file is there."""
    mark(path)
    held = b"x" * size_bytes
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            time.sleep(600)
            os._exit(0)
        pids.append(pid)
    wait_for_file(path)
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    del held


def wait_for_file(path: str) -> None:
    """Say that all is done, and sleep until the file is there."""
    Path(f"{path}.begun").touch()
    while not Path(path).exists():
        time.sleep(0.02)


def mark(path: str) -> None:
    """Note that a task runs."""
    with Path(f"{path}.runs").open("a") as runs:
        runs.write("x")
