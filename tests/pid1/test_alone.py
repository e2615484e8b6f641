"""PID 1 by itself, over shell commands in place of workers: how it ends, what it collects, what it ignores."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.stood_in import (
    AS_PID_1,
    DRAINING,
    READY,
    STUBBORN,
    Start,
    count_defunct,
    list_processes,
    only_child,
    stood_in,
)
from support.waiting import wait_for

# A thousand processes whose parents left before them, and who then end all at once.
ORPHANS = (
    "import os; r, w = os.pipe()\n"
    "for _ in range(1000):\n"
    "    if os.fork() == 0:\n"
    "        if os.fork() == 0:\n"
    "            os.close(w); os.read(r, 1)\n"
    "        os._exit(0)\n"
    "    os.wait()\n"
    "print('all there', flush=True); os.close(w)\n"
)


# How it ends.


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_asked_to_stop_it_stops_its_worker_in_order_and_ends_with_0(start: Start, signum: int) -> None:
    with start(commands={"slow": READY}) as running:
        running.wait_for_line("slow | up")
        assert running.stop(signum) == 0
        assert "slow | bye" in running.lines


def test_a_worker_that_outlasts_the_grace_is_killed_and_it_ends_with_1(start: Start) -> None:
    with start("--grace", "1", commands={"slow": STUBBORN}) as running:
        running.wait_for_line("slow | up")
        assert running.stop() == 1


def test_a_second_term_kills_what_is_left_and_it_ends_with_1(start: Start) -> None:
    with start("--grace", "600", commands={"slow": STUBBORN}) as running:
        running.wait_for_line("slow | up")
        running.send(signal.SIGTERM)
        running.wait_for_line("waiting for ")
        time.sleep(1.2)  # Within a second it would count as the same request.
        running.send(signal.SIGINT)
        running.wait_for_line("SIGINT again")
        assert running.wait() == 1


def test_a_term_in_the_middle_of_a_drain_that_then_ends_is_0(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with start(commands={"slow": DRAINING}, environment={"GATE": str(gate)}) as running:
        running.wait_for_line("slow | up")
        running.send(signal.SIGTERM)
        running.send(signal.SIGTERM)
        running.wait_for_line("slow | draining")
        gate.touch()
        assert running.wait() == 0
        assert "slow | drained" in running.lines


@pytest.mark.parametrize("moment", ["supervisord started", "spawned: 'governor'", "spawned: 'slow'"])
def test_a_term_at_any_moment_of_the_start_is_heeded_within_the_grace(start: Start, moment: str) -> None:
    with start(commands={"slow": "sleep 600"}) as running:
        running.wait_for_line(moment)
        assert running.stop(seconds=15) == 0


# Pools that keep dying.


def test_a_pool_that_dies_again_and_again_is_given_up_with_its_last_lines_and_70(start: Start) -> None:
    dying = "for i in $(seq 30); do echo line $i; done; printf 'no newline'; exit 3"
    with start(commands={"slow": dying, "fast": READY}, environment={"RECYCLERY_MAX_DEATHS": "2"}) as running:
        assert running.wait(40) == 70
        said = [line.partition("] ")[2] for line in running.lines if line.startswith("recyclery | ")]
        at = said.index(
            "slow does not stay up (2 deaths in 300 s): giving up; the last time it ended with status 3"
        )
        lines = [f"slow: line {number}" for number in range(12, 31)] + ["slow: no newline"]
        assert said[at + 1 : at + 21] == lines
        assert "fast | bye" in running.lines


def test_deaths_of_a_worker_that_had_stayed_up_count_too(start: Start) -> None:
    dying = "echo up; sleep 6; kill -9 $$"
    with start(commands={"slow": dying}, environment={"RECYCLERY_MAX_DEATHS": "2"}) as running:
        assert running.wait(40) == 70
        assert sum("slow entered RUNNING" in line for line in running.lines) == 2
        assert "the last time it was killed by SIGKILL, perhaps out of memory" in running.output


def test_a_worker_that_ends_with_0_was_asked_to_and_is_started_again(start: Start) -> None:
    commands = {"slow": "echo up; sleep 5.5; exit 0"}
    with start(commands=commands, environment={"RECYCLERY_MAX_DEATHS": "1"}) as running:
        running.wait_for_line("slow | up", count=2)
        assert running.stop() == 0


def test_a_worker_that_was_killed_over_rpc_was_asked_to_and_is_started_again(start: Start) -> None:
    with start(commands={"slow": READY}, environment={"RECYCLERY_MAX_DEATHS": "1"}) as running:
        running.wait_for_line("slow entered RUNNING")
        configuration = str(running.runtime_dir / "supervisord.conf")
        control = [sys.executable, "-m", "supervisor.supervisorctl", "-c", configuration]
        subprocess.run([*control, "signal", "KILL", "slow"], check=True, timeout=30)
        running.wait_for_line("slow | up", count=2)
        assert running.stop() == 0


def test_the_first_term_after_a_pool_was_given_up_does_not_kill_what_drains(
    start: Start, tmp_path: Path
) -> None:
    gate, up = tmp_path / "gate", tmp_path / "up"
    environment = {"RECYCLERY_MAX_DEATHS": "1", "GATE": str(gate)}
    # Not before the other one can drain.
    dying = f"until [ -e {up} ]; do sleep 0.1; done; exit 3"
    with start(commands={"slow": dying, "fast": DRAINING}, environment=environment) as running:
        running.wait_for_line("fast | up")
        up.touch()
        running.wait_for_line("fast | draining")
        running.send(signal.SIGTERM)
        running.wait_for_line("SIGTERM: stopping")
        gate.touch()
        assert running.wait() == 70
        assert "fast | drained" in running.lines


# Children.


def test_a_thousand_orphans_at_once_leave_no_defunct_process_and_no_line_each(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    command = f"{sys.executable} {tmp_path}/orphans.py; {READY}"
    with start("--log-level", "debug", commands={"slow": command}) as running:
        running.wait_for_line("slow | up", seconds=60)
        wait_for(lambda: running.defunct() == 0, "no defunct process")
        running.wait_for_line("orphans of other processes")
        assert len(running.lines) < 300
        assert running.stop() == 0


@pytest.mark.cgroup
def test_a_pid_1_that_does_not_reap_keeps_a_thousand_defunct(tmp_path: Path) -> None:
    (tmp_path / "orphans.py").write_text(ORPHANS)
    command = [*AS_PID_1, "/bin/sh", "-c", f"{sys.executable} {tmp_path}/orphans.py & exec sleep 600"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            pid = wait_for(lambda: only_child(process.pid), "PID 1")
            wait_for(lambda: count_defunct(pid) >= 1000, "a thousand defunct processes", seconds=60)
        finally:
            process.kill()


def test_a_grandchild_in_a_session_of_its_own_does_not_outlive_it(start: Start, tmp_path: Path) -> None:
    mark = f"6{os.getpid()}.5"
    command = f"setsid sleep {mark} & {READY}"

    def sleeping() -> list[int]:
        return [pid for pid, _, state in list_processes() if state != "Z" and says(pid, mark)]

    with start(commands={"slow": command}) as running:
        running.wait_for_line("slow | up")
        wait_for(sleeping, "the grandchild sleeps")
        assert running.stop() == 0
        wait_for(lambda: not sleeping(), "it is gone", seconds=5)


def says(pid: int, word: str) -> bool:
    """Tell whether a process's second word is this one."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[1:2] == [word.encode()]
    except OSError:
        return False


# Starts its arguments with HUP ignored, and TERM and USR2 blocked.
SPOILED = (
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN);"
    "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2});"
    "os.execvp(sys.argv[1], sys.argv[1:])",
)


def blocked_and_ignored(text: str) -> list[int]:
    """Return the two masks of a /proc/PID/status."""
    return [int(line.split()[-1], 16) for line in text.splitlines() if "SigBlk" in line or "SigIgn" in line]


def test_signals_blocked_or_ignored_before_its_start_are_neither_for_it_nor_for_its_workers(
    wrapper: tuple[str, ...],
) -> None:
    command = [*SPOILED, "cat", "/proc/self/status"]
    control = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert all(blocked_and_ignored(control))
    show = f"cat /proc/self/status; {READY}"
    with stood_in(wrapper=(*wrapper, *SPOILED), commands={"slow": show}) as running:
        running.wait_for_line("slow | up")
        assert blocked_and_ignored(running.output) == [0, 0]
        assert blocked_and_ignored(Path(f"/proc/{running.pid}/status").read_text())[0] == 0
        assert running.stop() == 0


# Signals that are not for stopping.

HANDLED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU)
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGSTOP)


def test_signals_that_do_not_stop_it_do_no_harm(start: Start) -> None:
    with start(commands={"slow": READY}) as running:
        running.wait_for_line("watching slow")
        before = running.children()
        for signum in HANDLED:
            running.send(signum)
        running.wait_for_line("SIGUSR2 is not used here")
        assert running.children() == before
        assert running.stop() == 0


@pytest.mark.cgroup
@pytest.mark.parametrize("wrapper", [AS_PID_1])
def test_no_other_signal_ends_pid_1(start: Start) -> None:
    with start(commands={"slow": READY}) as running:
        running.wait_for_line("watching slow")
        before = running.children()
        for signum in signal.valid_signals() - {*STOPPING}:
            running.send(signum)
        running.wait_for_line("SIGUSR2 is not used here")
        assert running.children() == before
        assert running.stop() == 0


def test_usr1_tells_the_programs_and_what_the_governor_sees(start: Start) -> None:
    with start(commands={"slow": READY}) as running:
        running.wait_for_line("watching slow")
        wait_for((running.runtime_dir / "heartbeat.json").exists, "the governor's loop has turned")
        running.send(signal.SIGUSR1)
        running.wait_for_line("USR1: slow: ")
        running.wait_for_line("lines were dropped so far")
        running.wait_for_line("cannot be reclaimed")
        assert running.stop() == 0
