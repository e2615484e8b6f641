"""`recyclery run` as PID 1 on a read-only root, as nobody, without capabilities."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery_demo.guard import refused_namespaces
from support.stood_in import AS_PID_1, READY, only_child
from support.supervised import SUPPORT
from support.waiting import wait_for

pytestmark = pytest.mark.cgroup

NOBODY = 65534
HARDENED = (
    "mount -t tmpfs -o mode=1777 tmpfs /run && mkdir /run/kept && {opened} mount -o remount,bind,ro / && "
    f"exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups --bounding-set=-all --inh-caps=-all "
    '--no-new-privs "$@"'
)
RUNTIME_DIR = "/run/recyclery"


BOTH_RUN = [["governor", "RUNNING"], ["slow", "RUNNING"], ["slow-b", "STOPPED"]]


def closed_parent(path: Path) -> Path | None:
    """Return the topmost folder above a path that others may not pass, as a home mostly is."""
    return next((folder for folder in reversed(path.parents) if not folder.stat().st_mode & 0o001), None)


def opened() -> str:
    """Return the shell commands that leave of each such folder what Python and this checkout need of it."""
    needed: dict[Path, set[str]] = {}
    for path in (Path(sys.executable).absolute(), Path(sys.executable).resolve(), SUPPORT):
        if closed := closed_parent(path):
            needed.setdefault(closed, set()).add(path.relative_to(closed).parts[0])
    commands = []
    for closed, names in needed.items():
        commands += [
            f"mkdir /run/kept/{name} && mount --bind {closed / name} /run/kept/{name}" for name in names
        ]
        commands += [f"mount -t tmpfs -o mode=755 tmpfs {closed}"]
        commands += [
            f"mkdir {closed / name} && mount --move /run/kept/{name} {closed / name}" for name in names
        ]
    return "".join(f"{command} && " for command in commands)


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
    contained = [*AS_PID_1, "sh", "-c", HARDENED.format(opened=opened()), "sh"]
    # By a shell: setpriv itself still has the capabilities to pass a closed folder.
    tried = subprocess.run(
        [*contained, "sh", "-c", '"$0" -c ""', sys.executable], check=False, capture_output=True, text=True
    )
    if tried.returncode:
        pytest.skip(f"nobody may not run {sys.executable} here: {tried.stderr}")
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
            [*contained, *supervisor],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        running = Hardened(process, log)
        try:
            yield running
        finally:
            # By itself: it does not die with its parent any more, having become nobody.
            if process.poll() is None:
                os.kill(running.pid, signal.SIGKILL)
            process.kill()


def test_a_hardened_container_works_read_only_as_nobody_without_capabilities(hardened: Hardened) -> None:
    wait_for(lambda: "slow entered RUNNING" in hardened.output, "the worker runs")
    assert f"slow | {NOBODY}\n" in hardened.output
    assert "Read-only file system" in hardened.output
    assert "slow | CapBnd:\t0000000000000000" in hardened.output
    configuration = f"{RUNTIME_DIR}/supervisord.conf"
    control = (sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration, "status")
    wait_for(lambda: states(hardened.run(*control).stdout) == BOTH_RUN, "supervisorctl says so, too")
    # A shell is no worker; that it does not answer is what the governor sees and tells.
    health = (sys.executable, "-m", "recyclery.health.heartbeat")
    wait_for(lambda: hardened.run(*health).stdout == "slow is not answering\n", "its health is told")
    os.kill(hardened.pid, 15)
    assert hardened.process.wait(30) == 0
    assert "exited: governor" not in hardened.output, hardened.output
    assert "Traceback" not in hardened.output
