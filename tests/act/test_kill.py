"""Killing: the right process, its profile folder, and never a stranger."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.act.cleanup import find_session_files
from recyclery.act.kill import kill_processes, signal_process
from recyclery.observe.processes import read_process
from recyclery.observe.snapshot import Owner, Process
from recyclery_worker.link import COLLECT_SIGNAL
from support.waiting import is_alive, wait_for


def started(*command: str) -> tuple["subprocess.Popen[bytes]", Process]:
    popen = subprocess.Popen(command)
    process = wait_for(lambda: read_process(popen.pid), "the process is there")
    return popen, process


def test_a_process_is_killed_and_seen_to_be_gone() -> None:
    popen, process = started("sleep", "60")
    assert asyncio.run(kill_processes([process])) == []
    assert popen.wait(5) == -9


def test_a_pid_that_was_given_to_another_process_is_not_touched() -> None:
    popen, process = started("sleep", "60")
    try:
        former = replace(process, start_ticks=process.start_ticks - 1)
        assert not signal_process(former, signal.SIGKILL)
        assert not signal_process(Owner("slow", process.pid, process.start_ticks - 1), COLLECT_SIGNAL)
        assert popen.poll() is None
    finally:
        popen.kill()
        popen.wait()


def test_what_a_dying_process_has_just_started_is_killed_with_it() -> None:
    popen, process = started("sh", "-c", "while :; do sleep 60 & wait; done")
    child = wait_for(
        lambda: Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split(), "its child"
    )
    sleeper = read_process(int(child[0]))
    assert sleeper is not None
    assert asyncio.run(kill_processes([process, sleeper])) == []
    popen.wait(5)
    assert not is_alive(sleeper.pid)


def sleep_with(argument: str) -> tuple["subprocess.Popen[bytes]", Process]:
    """Start a program that carries an argument of Chrome's."""
    popen, process = started(sys.executable, "-c", "import time; time.sleep(60)", argument)
    wait_for(lambda: argument.encode() in Path(f"/proc/{popen.pid}/cmdline").read_bytes(), "its arguments")
    return popen, process


def test_a_throw_away_profile_goes_with_its_browser() -> None:
    folder = Path(tempfile.mkdtemp(prefix="org.chromium.Chromium."))
    (folder / "Default").mkdir()
    popen, process = sleep_with(f"--user-data-dir={folder}")
    asyncio.run(kill_processes([process]))
    popen.wait(5)
    assert not folder.exists()


@pytest.mark.parametrize(
    "argument",
    [
        "/home/me/.config/chromium",
        "{tmp}",
        "{tmp}/mine",
        "{tmp}/scoped_dir1/../mine",
        "{tmp}x/scoped_dir1",
        "relative",
    ],
)
def test_a_profile_that_a_person_chose_is_never_removed(argument: str) -> None:
    folder = argument.format(tmp=tempfile.gettempdir())
    popen, process = sleep_with(f"--user-data-dir={folder}")
    try:
        assert find_session_files([process.pid]) == set()
    finally:
        popen.kill()
        popen.wait()


def test_an_empty_list_is_killed_at_once() -> None:
    assert asyncio.run(kill_processes([])) == []
