"""The cage, without a cgroup."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from recyclery.sandbox.cage import Cage
from recyclery.sandbox.guard import descendants

LEAVES_ON_TERM = (
    "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
    "print('up', flush=True); time.sleep(60)"
)
LEAVES_A_CHILD = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"


def start(tmp_path: Path, code: str) -> Cage:
    command = [sys.executable, "-c", code]
    return Cage(command, environment=os.environ, folder=tmp_path, log=tmp_path / "log")


def wait_for(text: str, tmp_path: Path) -> None:
    while text not in (tmp_path / "log").read_text():
        time.sleep(0.01)


def test_the_exit_status_comes_back(tmp_path: Path) -> None:
    with start(tmp_path, "raise SystemExit(3)") as cage:
        assert cage.wait(10) == 3


def test_death_by_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    with start(tmp_path, "import os; os.kill(os.getpid(), 9)") as cage:
        assert cage.wait(10) == 128 + signal.SIGKILL


def test_a_command_that_does_not_exist_is_named_in_the_log(tmp_path: Path) -> None:
    with Cage(["/no/such"], environment=os.environ, folder=tmp_path, log=tmp_path / "log") as cage:
        assert cage.wait(10) == 127
    assert "/no/such: No such file or directory" in (tmp_path / "log").read_text()


def test_term_reaches_the_command(tmp_path: Path) -> None:
    with start(tmp_path, LEAVES_ON_TERM) as cage:
        wait_for("up", tmp_path)
        cage.terminate()
        assert cage.wait(10) == 7


def test_what_a_command_left_is_found_without_a_cgroup_too(tmp_path: Path) -> None:
    with start(tmp_path, LEAVES_A_CHILD) as cage:
        cage.wait(10)
        assert [process.name for process in descendants(cage.guard_pid)] == ["sleep"]


def test_closing_ends_what_a_command_left(tmp_path: Path) -> None:
    with start(tmp_path, LEAVES_A_CHILD) as cage:
        cage.wait(10)
        (left,) = descendants(cage.guard_pid)
    assert not Path(f"/proc/{left.pid}").exists()


def test_the_death_of_the_demo_ends_what_it_started(tmp_path: Path) -> None:
    holder = f"""
import os, time
from pathlib import Path
from recyclery.sandbox.cage import Cage
folder = Path({str(tmp_path)!r})
cage = Cage(['sleep', '60'], environment=os.environ, folder=folder, log=folder / 'log')
print(cage.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        sleeper = int(process.stdout.readline())
        process.kill()
    while Path(f"/proc/{sleeper}").exists():
        time.sleep(0.01)
