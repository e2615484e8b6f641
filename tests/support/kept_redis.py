"""A real Redis that keeps what it has when it is restarted."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from support.ports import free_port
from support.redis_server import find_redis_server
from support.waiting import wait_for


class KeptRedis:
    """A redis-server on one port, with its data on disk."""

    def __init__(self, folder: Path, environment: Mapping[str, str] = {}) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis.from_url(self.url)
        self._folder = folder
        self._environment = environment
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, with what it had."""
        address = ["--bind", "127.0.0.1", "--port", str(self.port)]
        storage = ["--dir", str(self._folder), "--save", "", "--appendonly", "yes"]
        self._server = subprocess.Popen(
            [str(find_redis_server()), *address, *storage],
            env={**os.environ, **self._environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(self._answers, "Redis")

    def end(self) -> None:
        """Stop it in order."""
        if self._server is not None:
            self._server.terminate()
            self._server.wait()

    def pause(self, seconds: float) -> None:
        """Have it stand still, connections and all."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        self._server.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False


@contextmanager
def kept_redis() -> Iterator[KeptRedis]:
    """Run one until the block ends."""
    with TemporaryDirectory(prefix="redis-") as folder:
        server = KeptRedis(Path(folder))
        try:
            yield server
        finally:
            server.end()
