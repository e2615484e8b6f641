"""containers: not a benchmark; Docker as benchmarks use it: images, and containers on their own network."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

ROOT = Path(__file__).parents[1]
BASE_IMAGE = os.environ.get("BASE_IMAGE", "python:3.13-slim-trixie")
REDIS_IMAGE = "redis:7-bookworm"
BUILD_SECONDS = 1800.0
COMMAND_SECONDS = 120.0
READY_SECONDS = 120.0
# Above Recyclery's own grace of 25 s.
STOP_SECONDS = 35
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run"),  # noqa: S108  # inside
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
PEAK_FILES = "/sys/fs/cgroup/memory.peak /sys/fs/cgroup/memory/memory.max_usage_in_bytes"


def docker(*arguments: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run a docker command; return what it printed. Ends the benchmark with its errors where it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    if done.returncode != 0:
        raise SystemExit(f"docker {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def build(dockerfile: str, tag: str, *options: str) -> str:
    """Build one of the repository's images; return its tag."""
    base = ("--build-arg", f"BASE_IMAGE={BASE_IMAGE}")
    docker("build", "-f", str(ROOT / dockerfile), *base, "-t", tag, *options, str(ROOT), seconds=BUILD_SECONDS)
    return tag


def size_bytes(image: str) -> int:
    """Return an image's size as `docker images` tells it."""
    return int(docker("image", "inspect", "--format", "{{.Size}}", image))


class Container:
    """A container by its name, and when it was asked for (monotonic seconds)."""

    def __init__(self, name: str, asked_at: float) -> None:
        self.name = name
        self.asked_at = asked_at

    def printed(self) -> str:
        """Return its log."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def status(self) -> dict[str, Any]:
        """Return the supervisor's status document."""
        document: dict[str, Any] = json.loads(docker("exec", self.name, "recyclery", "status", "--json"))
        return document

    def peak_bytes(self) -> int:
        """Return the most memory it ever had, page cache included."""
        return int(docker("exec", self.name, "sh", "-c", f"cat {PEAK_FILES} 2>/dev/null || true"))

    def address(self, port: int) -> str:
        """Return where this machine reaches a port that was published."""
        return docker("port", self.name, str(port)).splitlines()[0]

    def stop(self) -> tuple[float, int]:
        """`docker stop`; return the seconds it took and the exit code."""
        begun = time.monotonic()
        docker("stop", "-t", str(STOP_SECONDS), self.name)
        took = time.monotonic() - begun
        return took, int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name))

    def had_oom_kill(self) -> bool:
        """Tell whether Docker saw the kernel kill in it for want of memory."""
        return docker("inspect", "--format", "{{.State.OOMKilled}}", self.name) == "true"


@contextmanager
def network() -> Iterator[str]:
    """A network that ends with the block; yield its name."""
    name = f"recyclery-bench-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def container(image: str, network: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[Container]:
    """Run a container until the block ends."""
    name, asked_at = f"recyclery-bench-{uuid.uuid4().hex[:8]}", time.monotonic()
    docker("run", "-d", "--name", name, "--network", network, *options, image, *command)
    try:
        yield Container(name, asked_at)
    finally:
        docker("rm", "-f", "-v", name)


@contextmanager
def redis_beside(network: str) -> Iterator[str]:
    """A Redis, for containers of the network `redis:6379`; yield its URL for this machine."""
    with container(REDIS_IMAGE, network, "--network-alias", "redis", "-p", "127.0.0.1::6379") as server:
        url = f"redis://{server.address(6379)}/0"
        with redis.Redis.from_url(url) as client:
            deadline = time.monotonic() + READY_SECONDS
            while not answers(client):
                if time.monotonic() > deadline:
                    raise SystemExit("the Redis in its container does not answer")
                time.sleep(0.1)
        yield url


def answers(client: redis.Redis) -> bool:
    """Tell whether a Redis answers."""
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
