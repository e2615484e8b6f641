"""`recyclery run` as PID 1 on a read-only root, as nobody, without capabilities."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery.demo.namespaces import refused_namespaces
from support.stood_in import AS_PID_1, READY, only_child
from support.supervised import SUPPORT
from support.waiting import wait_for

pytestmark = pytest.mark.cgroup

NOBODY = 65534
HARDENED = (
    "mount -t tmpfs -o mode=1777 tmpfs /run && mount -o remount,bind,ro / && "
    f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all "
    '--no-new-privs "$@"'
)
RUNTIME_DIR = "/run/recyclery"


BOTH_RUN = [["governor", "RUNNING"], ["slow", "RUNNING"], ["slow-b", "STOPPED"]]


def states(table: str) -> list[list[str]]:
    """Return the programs with their states as supervisorctl prints them."""
    return [line.split()[:2] for line in table.splitlines()]


class Hardened:
    """The supervisor in its container, and commands beside it."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self.pid = wait_for(lambda: only_child(process.pid), "PID 1")
        self._log = log

    @property
    def output(self) -> str:
        """All it has printed."""
        return self._log.read_text()

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a command inside, as `docker exec` does."""
        return subprocess.run(
            ["nsenter", "-t", str(self.pid), "-p", "-m", *words],
            env=os.environ | {"RECYCLERY_RUNTIME_DIR": RUNTIME_DIR},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )


@pytest.fixture
def hardened(tmp_path: Path) -> Iterator[Hardened]:
    """A supervisor over a shell command, in such a container."""
    if reason := refused_namespaces():
        pytest.skip(f"no namespaces here: {reason}")
    as_nobody = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
    if subprocess.run([*as_nobody, sys.executable, "-c", ""], check=False, capture_output=True).returncode:
        pytest.skip(f"nobody may not run {sys.executable}: a folder above it is closed to others")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(SUPPORT.parent),
        "TMPDIR": "/run",
        "CELERY_APP": "no_app",
        "STAND_IN_SLOW": f"grep Cap /proc/self/status; id -u; touch /etc/x; {READY}",
    }
    supervisor = [sys.executable, "-m", "support.stand_in", "run", "--pool", "slow"]
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*AS_PID_1, "sh", "-c", HARDENED, "sh", *supervisor],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            yield Hardened(process, log)
        finally:
            process.kill()


def test_it_works_read_only_as_nobody_without_capabilities(hardened: Hardened) -> None:
    wait_for(lambda: "slow entered RUNNING" in hardened.output, "the worker runs")
    assert f"slow | {NOBODY}\n" in hardened.output
    assert "Read-only file system" in hardened.output
    assert "slow | CapBnd:\t0000000000000000" in hardened.output
    configuration = f"{RUNTIME_DIR}/supervisord.conf"
    control = (sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration, "status")
    wait_for(lambda: states(hardened.run(*control).stdout) == BOTH_RUN, "supervisorctl says so, too")
    wait_for(lambda: hardened.run(sys.executable, "-m", "recyclery.health").stdout == "healthy\n", "healthy")
    os.kill(hardened.pid, 15)
    assert hardened.process.wait(30) == 0
    assert "exited: governor" not in hardened.output, hardened.output
    assert "Traceback" not in hardened.output
