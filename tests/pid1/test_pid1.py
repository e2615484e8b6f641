"""`recyclery run` as PID 1 of a PID namespace, in a memory cgroup: what a container's init must do."""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery.control.client import ask_governor
from recyclery.sandbox.cage import Cage, CannotCageError
from recyclery_demo.cage import CgroupCage, make_cage_cgroup
from support.supervised import SUPPORT
from support.waiting import wait_for

pytestmark = [pytest.mark.cgroup, pytest.mark.timeout(3600)]

LIMIT_BYTES = 512 << 20
# Long enough for an emulated machine on a busy one, where a supervisor takes some minutes to start.
PATIENCE_SECONDS = 900.0


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
        wait_for(lambda: self.output.count(text) >= count, f"{text!r} in the output", seconds=PATIENCE_SECONDS)

    def status(self) -> dict[str, Any]:
        """Return the status document: the control socket is a file, so it answers here too."""
        return ask_governor(Path(self._environment["RECYCLERY_RUNTIME_DIR"]), "status")

    def has_seen(self, child: int, tasks: int) -> bool:
        """Tell whether the governor knows of so many tasks of a pool child, or of its end."""
        done = {entry["pid"]: entry["tasks_done"] for entry in self.status()["pools"]["slow"]["children"]}
        return child not in done or done[child] >= tasks

    def signal(self, name: str, pid: int) -> None:
        """Send a signal to a process by its pid inside."""
        inside = ["nsenter", "-t", str(self.cage.pid), "-p", "-m"]
        subprocess.run([*inside, "kill", f"-{name}", str(pid)], check=True, timeout=PATIENCE_SECONDS)

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


@contextmanager
def caged_slow(redis_url: str, folder: Path, **more: str) -> Iterator[Caged]:
    """Run a supervisor with the slow pool as PID 1 under 512 MiB until the block ends."""
    try:
        cgroup = make_cage_cgroup(LIMIT_BYTES)
    except CannotCageError as error:
        pytest.skip(f"no cage here: {error}")
    with tempfile.TemporaryDirectory(prefix="rcy-", dir="/tmp") as runtime_dir:
        environment = {
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith(("CELERY_", "RECYCLERY_"))
            },
            "CELERY_APP": "sample_app",
            "PYTHONPATH": str(SUPPORT),
            "REDIS_URL": redis_url,
            "RECYCLERY_RUNTIME_DIR": runtime_dir,
            "RECYCLERY_STATE_DIR": f"{runtime_dir}/state",
            **more,
        }
        command = [sys.executable, "-m", "recyclery", "run", "--pool", "slow"]
        log = folder / "log"
        with CgroupCage(command, environment=environment, folder=folder, log=log, cgroup=cgroup) as cage:
            caged = Caged(cage, log, environment)
            caged.wait_for_text("ready.")
            caged.wait_for_text("slow entered RUNNING state")
            yield caged


@pytest.fixture
def slow(fresh_redis: str, tmp_path: Path) -> Iterator[Caged]:
    """A supervisor with the slow pool up, as PID 1 under 512 MiB."""
    with caged_slow(fresh_redis, tmp_path) as caged:
        yield caged


def test_the_supervisor_is_pid_1_starts_its_children_and_stops_them_with_0(slow: Caged) -> None:
    assert "supervisord started with pid 1\n" in slow.output
    assert slow.processes()[1] != "Z"
    slow.cage.terminate()
    assert slow.cage.wait(PATIENCE_SECONDS) == 0


def test_the_limit_is_the_cgroups(slow: Caged) -> None:
    container = slow.status()["container"]
    assert container["limit_bytes"] == LIMIT_BYTES
    assert container["source"].startswith("cgroup v")
    assert 0 < container["floor_bytes"] <= container["usage_bytes"] <= LIMIT_BYTES


def test_orphans_by_the_hundred_leave_no_defunct_process(slow: Caged, sender: Celery) -> None:
    sender.send_task("sample_app.leave_orphans", (200,), queue="low").get(timeout=PATIENCE_SECONDS)
    wait_for(lambda: "Z" not in slow.processes().values(), "no defunct process", PATIENCE_SECONDS)
    assert slow.cage.wait(0) is None
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=PATIENCE_SECONDS) == 3


def test_a_main_process_killed_with_9_is_started_again_and_what_its_child_started_is_gone(
    slow: Caged, sender: Celery
) -> None:
    _, left = sender.send_task("sample_app.leave_process", ("/bin/sleep",), queue="low").get(
        timeout=PATIENCE_SECONDS
    )
    assert left in slow.processes()
    slow.signal("KILL", slow.status()["pools"]["slow"]["pid"])
    slow.wait_for_text("ready.", count=2)
    # By the governor, or by the child, which sees its parent's end a moment before the kernel kills it.
    wait_for(lambda: left not in slow.processes(), "what the child started is gone", PATIENCE_SECONDS)
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=PATIENCE_SECONDS) == 3
    wait_for(lambda: "Z" not in slow.processes().values(), "no defunct process", PATIENCE_SECONDS)


def test_memory_above_the_hard_level_is_preempted_before_the_kernel_kills(
    slow: Caged, sender: Celery, tmp_path: Path
) -> None:
    grown = sender.send_task("sample_app.grow_step_by_step", (600 << 20, str(tmp_path / "once")), queue="low")
    slow.wait_for_text("preempt slow/")
    assert grown.get(timeout=PATIENCE_SECONDS) == 2
    assert slow.status()["container"]["oom_kills"] == 0
    wait_for(lambda: slow.status()["pools"]["slow"]["recycles"] == {"preempt": 1}, "counted", PATIENCE_SECONDS)


def test_a_kill_by_the_kernel_is_counted_and_the_task_runs_again(
    slow: Caged, sender: Celery, tmp_path: Path
) -> None:
    spawned = re.search(r"spawned: 'governor' with pid (\d+)", slow.output)
    assert spawned
    governor = int(spawned[1])
    # Else it would be before the kernel.
    slow.signal("STOP", governor)
    grown = sender.send_task("sample_app.grow_once", (600 << 20, str(tmp_path / "once")), queue="low")
    assert grown.get(timeout=PATIENCE_SECONDS) == 2
    slow.signal("CONT", governor)
    wait_for(lambda: slow.status()["container"]["oom_kills"] == 1, "counted", seconds=PATIENCE_SECONDS)
    assert slow.cage.wait(0) is None


def test_tasks_that_leak_twice_the_limit_are_all_done_without_a_kill(
    fresh_redis: str, sender: Celery, tmp_path: Path
) -> None:
    tasks, leak_bytes = 28, 40 << 20
    done_by: Counter[int] = Counter()
    with caged_slow(fresh_redis, tmp_path, CELERY_MAX_TASKS_PER_CHILD="1000") as slow:
        for _ in range(tasks):
            result = sender.send_task("sample_app.leave_memory", (leak_bytes,), queue="low")
            child = result.get(timeout=PATIENCE_SECONDS)
            done_by[child] += 1
            # However slow the machine: it is about leaks that the governor can see.
            wait_for(partial(slow.has_seen, child, done_by[child]), "it is seen", PATIENCE_SECONDS)
        status = slow.status()
        assert tasks * leak_bytes > 2 * LIMIT_BYTES
        assert status["container"]["oom_kills"] == 0
        assert "preempt" not in status["pools"]["slow"]["recycles"]
        assert len(done_by) >= 3
        slow.cage.terminate()
        assert slow.cage.wait(PATIENCE_SECONDS) == 0


def test_an_interrupt_stops_it_too(slow: Caged) -> None:
    os.kill(slow.cage.pid, signal.SIGINT)
    assert slow.cage.wait(PATIENCE_SECONDS) == 0
