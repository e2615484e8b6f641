"""The child's reporter, beside the tests of what it reports from a real worker."""

import socket
import sys
import threading
from pathlib import Path

import pytest

from recyclery_worker.link import ChildReport, decode_report
from recyclery_worker.pool.child import Reporter

THREADS, SESSIONS = 4, 50


def test_sessions_that_threads_open_at_the_same_time_are_all_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as governor:
        governor.bind("governor.sock")
        reporter = Reporter("slow", "governor.sock", 1)

        def open_sessions(thread: int) -> None:
            for number in range(SESSIONS):
                reporter.session_opened(f"closed {thread} {number}")
                reporter.session_opened(f"open {thread} {number}")
                reporter.session_closed(f"closed {thread} {number}")

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-5)
        try:
            threads = [threading.Thread(target=open_sessions, args=(number,)) for number in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
        governor.setblocking(False)
        while True:
            # What the full queue took is dropped: the last report repeats everything.
            try:
                governor.recv(1 << 20)
            except BlockingIOError:
                break
        reporter.session_opened("last")
        report = decode_report(governor.recv(1 << 20))
    assert isinstance(report, ChildReport)
    every = {f"open {thread} {number}" for thread in range(THREADS) for number in range(SESSIONS)}
    assert set(report.remote) == {*every, "last"}


def test_a_short_task_whose_start_was_reported_is_reported_to_have_ended_and_the_short_ones_after_it_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as governor:
        governor.bind("governor.sock")
        governor.setblocking(False)
        reporter = Reporter("slow", "governor.sock", 1)
        for number in range(4):
            reporter.task_started(f"id{number}", "short")
            reporter.task_ended()
        seen = []
        while True:
            try:
                report = decode_report(governor.recv(1 << 20))
            except BlockingIOError:
                break
            assert isinstance(report, ChildReport)
            seen.append((report.task_id, report.tasks_done))
    assert seen == [("id0", 0), (None, 1)]
