"""An app whose tasks hold memory and end in different ways when they are told that it is too much."""

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import sample_app
from sample_app import app

# What a process that was forked before shares with the child of a task.
SHARED_BYTES = int(os.environ.get("LIMIT_APP_SHARED_BYTES", "0"))
shared = b"x" * SHARED_BYTES


@app.task(name="limit_app.hold")
def hold(size_bytes: int, path: str) -> int:
    """Hold memory until a file is there, mark each run in another, and return the pool child's pid."""
    mark(path)
    held = b"x" * size_bytes
    pid: int = sample_app.nap_until(path)
    del held
    return pid


@app.task(name="limit_app.hold_in_c", acks_on_failure_or_timeout=False)
def hold_in_c(size_bytes: int, path: str) -> None:
    """Hold memory in a C function, during which Python runs no signal handler."""
    mark(path)
    held = b"x" * size_bytes
    ctypes.CDLL(None).sleep(600)
    # Where it returns early, as the signal came.
    ctypes.CDLL(None).sleep(600)
    del held


@app.task(name="limit_app.hold_on")
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


@app.task(name="limit_app.hold_elsewhere")
def hold_elsewhere(size_bytes: int, path: str) -> None:
    """Start a program that holds memory, note its pid, and wait for it."""
    mark(path)
    code = f"held = b'x' * {size_bytes}; import time; time.sleep(600)"
    program = subprocess.Popen([sys.executable, "-c", code])
    Path(f"{path}.program").write_text(str(program.pid))
    program.wait()


@app.task(name="limit_app.fork")
def fork(size_bytes: int, count: int, path: str) -> None:
    """Hold memory that this many forked processes share, until a file is there."""
    held = b"x" * size_bytes
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            time.sleep(600)
            os._exit(0)
        pids.append(pid)
    sample_app.nap_until(path)
    for pid in pids:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    del held


def mark(path: str) -> None:
    with Path(f"{path}.runs").open("a") as runs:
        runs.write("x")
