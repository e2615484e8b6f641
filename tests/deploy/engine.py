"""A Docker engine as the tests use it: the command, the images, and containers that end with their test."""

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.waiting import wait_for

ROOT = Path(__file__).parents[2]
# Another base, where the official one cannot be had.
BASE_IMAGE = os.environ.get("BASE_IMAGE", "python:3.13-slim-trixie")
REDIS_IMAGE = "redis:7-bookworm"
BUILD_SECONDS = 900.0
HARDENED = (
    *("--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--memory", "1g"),
)


def docker(*arguments: str, seconds: float = 120.0) -> str:
    """Run a docker command; return what it printed. Fails with its errors."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout.strip()


def skip_without_engine(*images: str) -> None:
    """Skip the test where no engine answers, or where it has not and cannot get the images to begin with."""
    if shutil.which("docker") is None:
        pytest.skip("no docker command")
    version = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if version.returncode != 0:
        pytest.skip(f"no Docker engine: {version.stderr.strip()}")
    for image in images:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            pull = subprocess.run(["docker", "pull", image], capture_output=True, text=True, check=False)
            if pull.returncode != 0:
                pytest.skip(f"no image {image}: {pull.stderr.strip()}")


def build(dockerfile: str, tag: str, *options: str) -> str:
    """Build one of the repository's images; return its tag."""
    file = ("-f", str(ROOT / dockerfile), "--build-arg", f"BASE_IMAGE={BASE_IMAGE}", "-t", tag)
    docker("build", *file, *options, str(ROOT), seconds=BUILD_SECONDS)
    return tag


class Container:
    """A container by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def output(self) -> str:
        """All it has printed."""
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    def wait_for_line(self, text: str, seconds: float = 60.0) -> None:
        """Wait until it has printed the text."""
        wait_for(lambda: text in self.output, f"{text!r} in:\n{self.output}", seconds)

    def run(self, *command: str) -> str:
        """Run a command in it."""
        return docker("exec", self.name, *command)

    def status(self) -> dict[str, Any]:
        """Return the supervisor's status document, as soon as it gives one."""
        command = ["docker", "exec", self.name, "recyclery", "status", "--json"]

        def look() -> dict[str, Any] | None:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return json.loads(done.stdout) if done.returncode == 0 else None

        return wait_for(look, f"a status; so far:\n{self.output}")

    def wait_for_running_task(self) -> None:
        """Wait until one of its children has a task in hand."""
        wait_for(
            lambda: any(
                child["task"] for pool in self.status()["pools"].values() for child in pool["children"]
            ),
            "a running task",
        )

    def stop(self, seconds: int) -> int:
        """`docker stop` with that time for the supervisor; return its exit code."""
        docker("stop", "-t", str(seconds), self.name)
        return int(docker("inspect", "--format", "{{.State.ExitCode}}", self.name))


@contextmanager
def network_of_its_own() -> Iterator[str]:
    """A network that ends with the block; give its name."""
    name = f"recyclery-test-{uuid.uuid4().hex[:8]}"
    docker("network", "create", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def container(image: str, network: str, *options: str, command: tuple[str, ...] = ()) -> Iterator[Container]:
    """Run a container until the block ends."""
    name = f"recyclery-test-{uuid.uuid4().hex[:8]}"
    docker("run", "-d", "--name", name, "--network", network, *options, image, *command)
    try:
        yield Container(name)
    finally:
        docker("rm", "-f", "-v", name)
