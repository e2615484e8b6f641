"""The services beside the container: a Redis and the tax office's site, each ended with the demo."""

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from recyclery.demo.requirements import DemoError
from recyclery.sandbox.cage import Cage, last_lines

START_SECONDS = 20.0
STOP_SECONDS = 3.0
_LOOPBACK = "127.0.0.1"


@contextmanager
def running_redis(redis_server: str, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run a Redis that keeps nothing on disk and yield its URL."""
    cage, port = _start_redis(redis_server, environment, folder)
    with cage:
        yield f"redis://{_LOOPBACK}:{port}/0"
        _stop(cage)


def _start_redis(redis_server: str, environment: Mapping[str, str], folder: Path) -> tuple[Cage, int]:
    attempts_left = 3
    while True:
        port = _free_port()
        command = [redis_server, "--bind", _LOOPBACK, "--port", str(port), "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no"]
        log = folder / "redis.log"
        cage = Cage(command, environment=environment, folder=folder, log=log)
        try:
            _wait_until(partial(_answers_ping, port), cage, "redis-server", log)
        except BaseException as error:
            cage.close()
            # Between our finding the port free and Redis taking it, somebody else may have.
            attempts_left -= 1
            if not isinstance(error, DemoError) or attempts_left == 0:
                raise
        else:
            return cage, port


@contextmanager
def running_site(python: str, environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Run the tax office's site and yield its URL, which is the first line it prints."""
    log = folder / "site.log"
    with Cage(
        [python, "-m", "taxoffice", "--port", "0"], environment=environment, folder=folder, log=log
    ) as cage:
        _wait_until(lambda: bool(_read_site_url(log)), cage, "the tax office's site", log)
        yield _read_site_url(log)
        _stop(cage)


def _stop(cage: Cage) -> None:
    cage.terminate()
    cage.wait(STOP_SECONDS)


def _wait_until(ready: Callable[[], bool], cage: Cage, name: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while cage.status is not None or not ready():
        if cage.wait(0.05) is not None:
            raise DemoError(f"{name} ended with status {cage.status} at its start:\n{last_lines(log)}")
        if time.monotonic() > deadline:
            raise DemoError(f"{name} did not answer within {START_SECONDS:.0f} s:\n{last_lines(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _answers_ping(port: int) -> bool:
    try:
        with socket.create_connection((_LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _read_site_url(log: Path) -> str:
    """Return the URL, or nothing as long as the line is not whole."""
    for line in log.read_text(errors="replace").splitlines(keepends=True):
        if line.startswith("site: ") and line.endswith("\n"):
            return line.removeprefix("site: ").strip()
    return ""
