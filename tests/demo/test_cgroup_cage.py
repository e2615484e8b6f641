"""The cage with a cgroup: its command is PID 1 of a namespace in it."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery_demo.cage import CgroupCage, make_cage_cgroup
from recyclery_demo.cgroups import SandboxCgroup

LIMIT_BYTES = 128 << 20
LEAVES_ON_TERM = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
    "print('up', flush=True); time.sleep(60)"
)
LEAVES_A_CHILD = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"
# A child of its own takes twice the limit; the kernel kills it, and not the one that writes the answer.
OVEREATS = (
    "import subprocess, sys; code = 'held = b\"x\" * (256 << 20)'; "
    "print('child', subprocess.run([sys.executable, '-c', code]).returncode, flush=True)"
)


@pytest.fixture
def cgroup() -> Iterator[SandboxCgroup]:
    made = make_cage_cgroup(LIMIT_BYTES)
    yield made
    made.remove()


def start(tmp_path: Path, code: str, cgroup: SandboxCgroup) -> CgroupCage:
    command = [sys.executable, "-c", code]
    return CgroupCage(command, environment=os.environ, folder=tmp_path, log=tmp_path / "log", cgroup=cgroup)


def wait_for(text: str, tmp_path: Path) -> None:
    while text not in (tmp_path / "log").read_text():
        time.sleep(0.01)


@pytest.mark.cgroup
def test_the_command_is_pid_1(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    code = "import os; print(os.getpid(), [name for name in os.listdir('/proc') if name.isdecimal()])"
    with start(tmp_path, code, cgroup) as cage:
        assert cage.wait(10) == 0
    assert (tmp_path / "log").read_text() == "1 ['1']\n"


@pytest.mark.cgroup
def test_the_command_is_in_the_cgroup_and_its_guard_is_not(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, LEAVES_ON_TERM, cgroup) as cage:
        wait_for("up", tmp_path)
        assert cgroup.processes() == [cage.pid]


@pytest.mark.cgroup
def test_the_limit_is_enforced_and_the_kill_counted(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, OVEREATS, cgroup) as cage:
        assert cage.wait(30) == 0
        assert cgroup.oom_kills() == 1
        assert LIMIT_BYTES * 0.9 < (cgroup.peak_bytes() or 0) <= LIMIT_BYTES
    assert "child -9" in (tmp_path / "log").read_text()


@pytest.mark.cgroup
def test_term_reaches_pid_1(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, LEAVES_ON_TERM, cgroup) as cage:
        wait_for("up", tmp_path)
        cage.terminate()
        assert cage.wait(10) == 7


@pytest.mark.cgroup
def test_a_pid_1_that_ignores_term_can_be_killed(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, "print('up', flush=True); import time; time.sleep(60)", cgroup) as cage:
        wait_for("up", tmp_path)
        cage.terminate()
        assert cage.wait(0.5) is None
        cage.kill()
        assert cage.wait(10) == 128 + signal.SIGKILL


@pytest.mark.cgroup
def test_the_namespace_ends_with_its_pid_1(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, LEAVES_A_CHILD, cgroup) as cage:
        cage.wait(10)
        assert cgroup.processes() == []


@pytest.mark.cgroup
def test_the_cgroup_is_gone_afterwards(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with start(tmp_path, LEAVES_ON_TERM, cgroup):
        assert cgroup.path.is_dir()
    assert not cgroup.path.exists()


@pytest.mark.cgroup
def test_the_cgroup_is_gone_after_an_exception_too(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    with pytest.raises(KeyboardInterrupt), start(tmp_path, LEAVES_ON_TERM, cgroup):
        raise KeyboardInterrupt
    assert not cgroup.path.exists()


@pytest.mark.cgroup
def test_the_mounts_of_the_cage_are_its_own(tmp_path: Path, cgroup: SandboxCgroup) -> None:
    mark = f"recyclery-test-{os.getpid()}"
    with start(tmp_path, f"open('/dev/shm/{mark}', 'w').close()", cgroup) as cage:
        assert cage.wait(10) == 0
    assert not Path("/dev/shm", mark).exists()
