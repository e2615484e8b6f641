"""Reading the process table and the marker in an environment."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recyclery.observe.processes import (
    Markers,
    OpenFiles,
    parse_marker,
    read_process,
    read_processes,
    with_memory,
)
from recyclery.observe.snapshot import CLOCK_TICK_SECONDS, Owner
from recyclery_worker.link import now
from support.waiting import wait_for

CHILD = Owner("slow", 20, 2000)


@contextmanager
def running_sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        try:
            yield sleeper
        finally:
            sleeper.kill()


def open_descriptors() -> set[str]:
    # The listing's own descriptor is closed by the time it is looked at.
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


def test_the_process_that_reads_itself_is_read_as_it_is() -> None:
    process = read_process(os.getpid())
    assert process is not None
    assert (process.parent, process.session) == (os.getppid(), os.getsid(0))
    assert 0 <= now() - process.started < 3600


def test_a_name_with_parentheses_and_spaces_does_not_confuse_the_reader(tmp_path: Path) -> None:
    program = tmp_path / ") S 1 (x"
    program.write_bytes(Path("/bin/sleep").read_bytes())
    program.chmod(0o755)
    with subprocess.Popen([program, "60"]) as sleeper:
        try:
            wait_for(lambda: Path(f"/proc/{sleeper.pid}/comm").read_text() == ") S 1 (x\n", "the program runs")
            process = read_process(sleeper.pid)
            assert process is not None
            assert (process.name, process.parent) == (") S 1 (x", os.getpid())
        finally:
            sleeper.kill()


def test_a_pid_that_is_not_there_reads_as_none() -> None:
    assert read_process(2**22 + 1) is None


def test_the_list_has_this_process_in_it() -> None:
    assert os.getpid() in {process.pid for process in read_processes()}


def test_memory_is_what_the_process_has_touched() -> None:
    me = read_process(os.getpid())
    assert me is not None
    before = with_memory(me).anon_bytes
    ballast = b"x" * (64 << 20)
    grown = with_memory(me).anon_bytes - before
    assert 60 << 20 < grown < 80 << 20, len(ballast)


def test_cpu_time_is_what_the_process_has_used() -> None:
    deadline = time.process_time() + 0.1
    before = read_process(os.getpid())
    while time.process_time() < deadline:
        pass
    after = read_process(os.getpid())
    assert before is not None
    assert after is not None
    assert after.cpu_ticks - before.cpu_ticks >= 5
    assert abs(after.cpu_ticks * CLOCK_TICK_SECONDS - time.process_time()) < 1
    assert with_memory(after).cpu_ticks == after.cpu_ticks


def test_a_kept_file_tells_what_is_now() -> None:
    files = OpenFiles()
    with running_sleeper() as sleeper:
        path = f"/proc/{sleeper.pid}/stat"
        assert wait_for(lambda: b" S " in files.read(path), "it sleeps")
        sleeper.send_signal(signal.SIGSTOP)
        assert wait_for(lambda: b" T " in files.read(path), "the stop is seen")
    assert files.read(path) == b""


def test_a_file_is_opened_once_however_often_it_is_read() -> None:
    files = OpenFiles()
    with running_sleeper() as sleeper:
        before = open_descriptors()
        for _ in range(5):
            assert read_process(sleeper.pid, files.read) is not None
            files.turn()
        assert len(open_descriptors() - before) == 1


def test_what_is_not_read_any_more_is_closed_at_the_second_turn() -> None:
    files = OpenFiles()
    before = open_descriptors()
    assert files.read("/proc/self/stat")
    files.turn()
    files.turn()
    assert open_descriptors() == before


def test_beyond_half_of_the_descriptors_a_process_may_have_nothing_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2, 2))
    files = OpenFiles()
    before = open_descriptors()
    assert files.read("/proc/self/stat")
    assert files.read("/proc/self/status")
    assert len(open_descriptors() - before) == 1


def test_a_marker_of_this_run_names_the_owner() -> None:
    assert parse_marker(b"A=b\0RECYCLERY_CHILD=run1/slow/20/2000\0C=d\0", "run1") == CHILD


def test_a_marker_of_another_run_names_nobody() -> None:
    assert parse_marker(b"RECYCLERY_CHILD=run2/slow/20/2000\0", "run1") is None


def test_a_marker_that_cannot_be_read_names_nobody() -> None:
    for value in (b"", b"x", b"run1/slow/20", b"run1/slow/a/b", b"\xff/\xff/1/2"):
        assert parse_marker(b"RECYCLERY_CHILD=" + value + b"\0", "run1") is None


def test_a_variable_that_only_ends_like_the_marker_is_none() -> None:
    assert parse_marker(b"MY_RECYCLERY_CHILD=run1/slow/20/2000\0", "run1") is None


def test_a_markers_owner_is_read_from_a_real_process() -> None:
    environment = {**os.environ, "RECYCLERY_CHILD": "run1/slow/20/2000"}
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment) as child:
        try:
            markers = Markers("run1")

            def found() -> Owner | None:
                process = read_process(child.pid)
                return markers.read([process], now()).get(child.pid) if process else None

            assert wait_for(found, "the marker is seen") == CHILD
        finally:
            child.kill()
