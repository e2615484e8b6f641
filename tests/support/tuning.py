"""A real `recyclery tune` over an app of the tests, in a process of its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from support.supervised import SUPPORT
from support.waiting import wait_for

# Short windows of a short task: what is tested is what is left, not what is found.
QUICK = ("--pool", "slow", "--generate", "tune_app:naps", "--seconds", "2", "--max-tasks-per-child", "3")


@contextmanager
def tuning(redis_url: str, folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `recyclery tune ARGUMENTS` until the block ends."""
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "recyclery", "tune", *arguments],
        env={**clean, "CELERY_APP": "tune_app", "PYTHONPATH": str(SUPPORT), "REDIS_URL": redis_url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=folder,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def content_of(client: redis.Redis) -> dict[bytes, object]:
    """Return all that a Redis holds, byte by byte."""
    keys: list[bytes] = client.keys()  # type: ignore[assignment]
    return {key: client.dump(key) for key in keys}


def wait_until_tuned(client: redis.Redis) -> str:
    """Wait until a worker has tasks of a tuning in hand; return the tuning's name."""

    def find() -> str:
        held: list[bytes] = client.keys("recyclery:tune:*:unacked")  # type: ignore[assignment]
        return held[0].decode().split(":")[2] if held else ""

    return wait_for(find, "a task in hand")


def processes_of(name: str) -> list[int]:
    """Return the processes that belong to a tuning."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"RECYCLERY_TUNE={name}".encode() in variables:
            found.append(int(folder.name))
    return found
