"""What plain parts do where PID 1 of ours does better: each shows that a test beside this file can fail."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from recyclery_demo.guard import refused_namespaces
from support.stood_in import AS_PID_1, DRAINING, READY, STUBBORN, list_processes, only_child
from support.terminal import Terminal, become_terminals_session
from support.waiting import wait_for

GROUP = "startsecs=0\nstartretries=1\nstopwaitsecs=1\nkillasgroup=true\n"


class Bare:
    """A supervisord without us."""

    def __init__(self, process: "subprocess.Popen[bytes]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        """Its log."""
        return self._log.read_text() if self._log.exists() else ""

    def wait_for_text(self, text: str, count: int = 1) -> None:
        """Wait until its log holds a text so many times."""
        wait_for(lambda: self.output.count(text) >= count, f"{text!r} in:\n{self.output}")


@contextmanager
def bare_supervisord(folder: Path, **programs: str) -> Iterator[Bare]:
    """Run shell commands under plain supervisord until the block ends."""
    log, configuration = folder / "log", folder / "supervisord.conf"
    text = f"[supervisord]\nnodaemon=true\nlogfile={log}\npidfile={folder}/pid\n"
    for name, command in programs.items():
        (folder / name).write_text(command)
        text += (
            f"[program:{name}]\ncommand=/bin/sh {folder}/{name}\nstdout_logfile={folder}/{name}.out\n{GROUP}"
        )
    configuration.write_text(text)
    command_line = [sys.executable, "-m", "supervisor.supervisord", "-c", str(configuration)]
    with subprocess.Popen(command_line, stdout=subprocess.DEVNULL) as process:
        try:
            yield Bare(process, log)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()


def test_bare_supervisord_restarts_everything_on_hup(tmp_path: Path) -> None:
    with bare_supervisord(tmp_path, slow=READY) as bare:
        bare.wait_for_text("spawned: 'slow'")
        wait_for((tmp_path / "slow.out").exists, "its output is taken")
        bare.process.send_signal(signal.SIGHUP)
        bare.wait_for_text("spawned: 'slow'", count=2)


def test_bare_supervisord_lives_on_when_a_program_keeps_dying_and_ends_with_0(tmp_path: Path) -> None:
    with bare_supervisord(tmp_path, slow="exec no-such-program") as bare:
        bare.wait_for_text("spawned: 'slow'", count=3)
        assert bare.process.poll() is None
        bare.process.terminate()
        assert bare.process.wait(20) == 0


def test_bare_supervisord_stops_one_program_after_the_other(tmp_path: Path) -> None:
    with bare_supervisord(tmp_path, fast=STUBBORN, slow=STUBBORN) as bare:
        outputs = [tmp_path / "fast.out", tmp_path / "slow.out"]
        wait_for(lambda: all(path.exists() and path.read_text() == "up\n" for path in outputs), "both are up")
        bare.process.terminate()
        assert bare.process.wait(30) == 0
        first, second = (bare.output.index(f"killing '{name}'") for name in ("slow", "fast"))
        assert "stopped: slow" in bare.output[first:second]


def test_bare_supervisord_leaves_a_grandchild_in_a_session_of_its_own(tmp_path: Path) -> None:
    mark = f"6{os.getpid()}.25"

    def sleeping() -> list[int]:
        words = {pid: words_of(pid) for pid, _, state in list_processes() if state != "Z"}
        return [pid for pid, command in words.items() if command[:2] == [b"sleep", mark.encode()]]

    try:
        with bare_supervisord(tmp_path, slow=f"setsid sleep {mark} & {READY}") as bare:
            wait_for(sleeping, "the grandchild sleeps")
            bare.process.terminate()
            assert bare.process.wait(20) == 0
            assert sleeping()
    finally:
        for pid in sleeping():
            os.kill(pid, signal.SIGKILL)


def words_of(pid: int) -> list[bytes]:
    """Return a process's command; nothing where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def ended_by(process: "subprocess.Popen[bytes]", terminal: Terminal) -> bool:
    """Type Ctrl-C, and tell whether a process has ended."""
    terminal.type(b"\x03")
    time.sleep(0.5)
    return process.poll() is not None


def test_ctrl_c_under_a_plain_shell_kills_the_worker_before_it_can_drain(tmp_path: Path) -> None:
    terminal = Terminal()
    with subprocess.Popen(
        ["/bin/sh", "-c", f"sh -c '{DRAINING}'; exit 5"],
        env={**os.environ, "GATE": str(tmp_path / "gate")},
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        preexec_fn=become_terminals_session,  # noqa: PLW1509  # the child of a test
    ) as process:
        try:
            wait_for(lambda: terminal.shows(b"up"), "the worker is up")
            # One that comes while the shell is between two commands may be lost on it.
            wait_for(lambda: ended_by(process, terminal), "the worker is killed")
            assert process.returncode != 0
            assert "drain" not in terminal.screen
        finally:
            process.kill()


@pytest.mark.cgroup
def test_a_pid_1_without_handlers_never_hears_of_a_term() -> None:
    if reason := refused_namespaces():
        pytest.skip(f"no namespaces here: {reason}")
    with subprocess.Popen([*AS_PID_1, "sleep", "600"]) as process:
        try:
            pid = wait_for(lambda: only_child(process.pid), "PID 1")
            wait_for(lambda: words_of(pid)[:1] == [b"sleep"], "it sleeps")
            os.kill(pid, signal.SIGTERM)
            # Thrown away at once: nothing is left to be delivered.
            pending = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "Pnd" in line]
            assert [int(line.split()[1], 16) for line in pending] == [0, 0]
            assert process.poll() is None
        finally:
            process.kill()
