"""`recyclery run` as PID 1 of a PID namespace, in a memory cgroup: what a container's init must do."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery.demo.cage import Cage, make_cage_cgroup
from recyclery.demo.home import CannotCageError
from support.supervised import SUPPORT
from support.waiting import wait_for

pytestmark = pytest.mark.cgroup

LIMIT_BYTES = 512 << 20


class Caged:
    """A supervisor that is PID 1 of its cage, seen from outside."""

    def __init__(self, cage: Cage, log: Path, environment: dict[str, str]) -> None:
        self.cage = cage
        self._log = log
        self._environment = environment

    @property
    def output(self) -> str:
        """All it has printed."""
        return self._log.read_text()

    def wait_for_text(self, text: str, count: int = 1) -> None:
        """Wait until the output holds the text so many times."""
        wait_for(lambda: self.output.count(text) >= count, f"{text!r} in the output:\n{self.output}")

    def status(self) -> dict[str, Any]:
        """Return the status document: the control socket is a file, so it answers here too."""
        command = [sys.executable, "-m", "recyclery", "status", "--json"]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True, check=True)
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def processes(self) -> dict[int, str]:
        """Return the cage's processes by their pids inside, with their states (Z: defunct)."""
        found = {}
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            inner = re.search(r"^NSpid:\s+\d+\s+(\d+)$", text, re.MULTILINE)
            state = re.search(r"^State:\s+(\w)", text, re.MULTILINE)
            namespace = status.with_name("ns") / "pid"
            if inner and state and self._is_ours(namespace):
                found[int(inner[1])] = state[1]
        return found

    def _is_ours(self, namespace: Path) -> bool:
        try:
            return namespace.readlink() == Path(f"/proc/{self.cage.pid}/ns/pid").readlink()
        except OSError:
            return False


@pytest.fixture
def slow(fresh_redis: str, tmp_path: Path) -> Iterator[Caged]:
    """A supervisor with the slow pool up, as PID 1 under 512 MiB."""
    try:
        cgroup = make_cage_cgroup(LIMIT_BYTES)
    except CannotCageError as error:
        pytest.skip(f"no cage here: {error}")
    with tempfile.TemporaryDirectory(prefix="rcy-") as runtime_dir:
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CELERY_", "RECYCLERY_"))
            },
            "CELERY_APP": "sample_app",
            "PYTHONPATH": str(SUPPORT),
            "REDIS_URL": fresh_redis,
            "RECYCLERY_RUNTIME_DIR": runtime_dir,
        }
        command = [sys.executable, "-m", "recyclery", "run", "--pool", "slow"]
        log = tmp_path / "log"
        with Cage(command, environment=environment, folder=tmp_path, log=log, cgroup=cgroup) as cage:
            caged = Caged(cage, log, environment)
            caged.wait_for_text("ready.")
            caged.wait_for_text("slow entered RUNNING state")
            yield caged


def test_it_is_pid_1_starts_its_children_and_stops_them_with_0(slow: Caged) -> None:
    assert "supervisord started with pid 1\n" in slow.output
    assert slow.processes()[1] != "Z"
    slow.cage.terminate()
    assert slow.cage.wait(30) == 0


def test_the_limit_is_the_cgroups(slow: Caged) -> None:
    container = slow.status()["container"]
    assert container["limit_bytes"] == LIMIT_BYTES
    assert container["source"].startswith("cgroup v")
    assert 0 < container["floor_bytes"] <= container["usage_bytes"] <= LIMIT_BYTES


def test_orphans_by_the_hundred_leave_no_defunct_process(slow: Caged, sender: Celery) -> None:
    sender.send_task("sample_app.leave_orphans", (200,), queue="low").get(timeout=60)
    wait_for(lambda: "Z" not in slow.processes().values(), "no defunct process", seconds=20)
    assert slow.cage.wait(0) is None
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3


def test_a_main_process_killed_with_9_is_started_again_and_what_its_child_started_is_gone(
    slow: Caged, sender: Celery
) -> None:
    _, left = sender.send_task("sample_app.leave_process", ("/bin/sleep",), queue="low").get(timeout=30)
    assert left in slow.processes()
    main = slow.status()["pools"]["slow"]["pid"]
    subprocess.run(
        ["nsenter", "-t", str(slow.cage.pid), "-p", "-m", "kill", "-9", str(main)], check=True, timeout=10
    )
    slow.wait_for_text("ready.", count=2)
    # By the governor, or by the child, which sees its parent's end a moment before the kernel kills it.
    wait_for(lambda: left not in slow.processes(), "what the child started is gone")
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
    wait_for(lambda: "Z" not in slow.processes().values(), "no defunct process")


def test_memory_above_the_hard_level_is_preempted_before_the_kernel_kills(
    slow: Caged, sender: Celery, tmp_path: Path
) -> None:
    grown = sender.send_task("sample_app.grow_step_by_step", (600 << 20, str(tmp_path / "once")), queue="low")
    slow.wait_for_text("preempt slow/")
    assert grown.get(timeout=60) == 2
    assert slow.status()["container"]["oom_kills"] == 0
    wait_for(lambda: slow.status()["pools"]["slow"]["recycles"] == {"preempt": 1}, "counted")


def test_an_interrupt_stops_it_too(slow: Caged) -> None:
    os.kill(slow.cage.pid, signal.SIGINT)
    assert slow.cage.wait(30) == 0
