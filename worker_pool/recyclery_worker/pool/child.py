"""A pool child: its own session, its name in its environment, and its reports to the governor.

Without Celery: `browser()` uses this in any process.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from recyclery_worker import link
from recyclery_worker.browser_names import is_browser_name
from recyclery_worker.link import read_variable

TERM_SECONDS = 1.0  # A browser that gets TERM is gone in 0.2 s, and has then removed its own files
# Tasks shorter than this are not reported each: the report must not be most of what a task costs.
SHORT_SECONDS = 0.02


class Reporter:
    """Sends this child's state to the governor, never waiting for it and never failing a task."""

    def __init__(self, pool: str, address: str, start_ticks: int) -> None:
        self._address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._report = link.ChildReport(
            pool=pool,
            pid=os.getpid(),
            start_ticks=start_ticks,
            tasks_done=0,
            task_id=None,
            task_name=None,
            first_task_started=0.0,
            last_task_ended=None,
            sent=0.0,
        )
        # Tasks may open and close browsers in threads: a set changes in one step, a list does not.
        self._kept: set[int] = set()
        self._remote: set[str] = set()
        self._first_task_started: float | None = None
        self._task_started = 0.0
        self._last_was_short = False
        self._start_was_sent = False

    @property
    def task_id(self) -> str | None:
        """The task that runs; None between two."""
        return self._report.task_id

    def browser_kept(self, chromedriver_pid: int) -> None:
        """Record a browser that is kept for the next task; reported when this task ends."""
        self._kept.add(chromedriver_pid)

    def browser_ended(self, chromedriver_pid: int) -> None:
        self._kept.discard(chromedriver_pid)

    def session_opened(self, session_id: str) -> None:
        """Report a session on a Grid at once: nobody could find it after this process died."""
        self._remote.add(session_id)
        self._send()

    def session_closed(self, session_id: str) -> None:
        self._remote.discard(session_id)
        self._send()

    def set_tracing(self, state: Literal["on", "over"]) -> None:
        """Report that allocations are traced: from then on this child's memory says nothing about its tasks."""
        self._report.tracing = state
        self._send()

    def task_started(self, task_id: str, task_name: str) -> None:
        report = self._report
        report.task_id, report.task_name = task_id, task_name
        self._task_started = link.now()
        if self._first_task_started is None:
            self._first_task_started = self._task_started
            report.idle_bytes, report.idle_shared_bytes = read_memory()
        self._start_was_sent = not self._last_was_short
        if self._start_was_sent:
            self._send()

    def task_ended(self, *, force: bool = False) -> None:
        """Record the end of the task started last, if there is one; with `force` report a short one too."""
        report = self._report
        if report.task_name is None:
            return
        report.ended[report.task_name] = report.ended.get(report.task_name, 0) + 1
        report.last_task_name, report.last_task_started = report.task_name, self._task_started
        report.task_id = report.task_name = None
        report.tasks_done += 1
        report.last_task_ended = ended = link.now()
        self._last_was_short = ended - self._task_started < SHORT_SECONDS
        # Else the next task, of which nothing is told if it follows a short one, would pass for this one.
        is_told = self._start_was_sent or not self._last_was_short
        if force or is_told or ended - report.sent > SHORT_SECONDS:
            # Where work waits, the next task begins within a millisecond: only here can idle memory be read.
            report.idle_bytes, report.idle_shared_bytes = read_memory()
            self._send()

    def _send(self) -> None:
        report = self._report
        report.sent = link.now()
        # Copied first: another thread may change them meanwhile.
        report.kept, report.remote = sorted(self._kept.copy()), sorted(self._remote.copy())
        report.first_task_started = self._first_task_started or report.sent
        # A process that a task has forked is not this child.
        report.pid = os.getpid()
        try:
            self._socket.sendto(link.encode_message(report), self._address)
        except OSError:
            # No governor, or its queue is full: the next report repeats everything.
            return
        report.ended = {}


_reporter: Reporter | None = None
before_end: list[Callable[[], None]] = []  # Called before the session is ended


def become_session_leader(**_: object) -> None:
    """Lead a session, by which everything that this child starts can be found."""
    # Called first after the fork, before a handler of the user can start a process.
    if os.getsid(0) != os.getpid():
        os.setsid()
    start_reporting()


def start_reporting() -> None:
    """Mark what this process starts, and report its tasks, where there is a supervisor."""
    global _reporter
    pool = read_variable("RECYCLERY_POOL")
    runtime_dir = read_variable("RECYCLERY_RUNTIME_DIR")
    if not pool or not runtime_dir:
        return
    signal.signal(link.COLLECT_SIGNAL, reap_browsers)
    # Field 22 (proc(5)).
    start_ticks = int(Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()[19])
    os.environ[link.CHILD_MARKER] = f"{read_variable('RECYCLERY_RUN')}/{pool}/{os.getpid()}/{start_ticks}"
    _reporter = Reporter(pool, str(link.governor_socket(Path(runtime_dir))), start_ticks)


def end_session_members(**_: object) -> None:
    """Stop the other members of our session, with TERM, then KILL; only where we lead it."""
    for call in before_end:
        call()
    me = os.getpid()
    if os.getsid(0) != me:
        return
    deadline = time.monotonic() + TERM_SECONDS
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if not (members := [pid for pid in list_session(me) if pid != me]):
            return
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signum)
        reap_browsers()
        if signum == signal.SIGTERM:
            while time.monotonic() < deadline and any(map(is_process_running, members)):
                time.sleep(0.01)


def list_session(session: int) -> list[int]:
    """Return the pids of a session's members that run."""
    members = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # a Path for each process costs ten times as much
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry)) == session and is_process_running(int(entry)):
                    members.append(int(entry))
    return members


def is_process_running(pid: int) -> bool:
    """Return whether a process exists and is no zombie."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2][1:2] not in {b"Z", b"X"}
    return False


def reap_browsers(*_: object) -> None:
    """Reap browser zombies among our own children: task code that forgot a browser never does."""
    # Only browsers: another process's exit status belongs to whoever started it. A Popen whose process is
    # reaped here reports returncode 0 later (subprocess, Popen._try_wait).
    children: list[str] = []
    # Whichever thread started them. One may end meanwhile, as this runs in the middle of a task.
    for listing in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):
            children += listing.read_text().split()
    for pid in children:
        with contextlib.suppress(OSError):
            if is_browser_name(Path(f"/proc/{pid}/comm").read_text().rstrip("\n")):
                os.waitpid(int(pid), os.WNOHANG)


def read_memory(pid: int | str = "self") -> tuple[int, int]:
    """Return a process's anonymous memory, and how much shared memory it has mapped (proc(5), status)."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    found = (status.partition(key)[2].split(None, 1) for key in (b"\nRssAnon:", b"\nRssShmem:"))
    # A kernel may have no such line.
    anon, shared = (int(rest[0]) << 10 if rest else 0 for rest in found)
    return anon, shared


def reporter() -> Reporter | None:
    """Return this child's reporter; None where there is no governor."""
    return _reporter
