"""A pool child: its own session, its name in its environment, and its reports to the governor.

Without Celery: `browser()` uses this in any process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from recyclery_worker.link import CHILD_MARKER, COLLECT_SIGNAL, ChildReport, encode, governor_socket, now

# A browser that gets TERM is gone in 0.2 s, and has then removed its own files.
TERM_SECONDS = 1.0
# Tasks shorter than this are not reported each: the report must not be most of what a task costs.
SHORT_SECONDS = 0.02


class Reporter:
    """Sends this child's state to the governor, never waiting for it and never failing a task."""

    def __init__(self, pool: str, address: str, start_ticks: int) -> None:
        self._pool = pool
        self._address = address
        self._start_ticks = start_ticks
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._tasks_done = 0
        self._running: tuple[str, str] | None = None
        self._task_started = 0.0
        self._first_task_started: float | None = None
        self._last_task_ended: float | None = None
        self._last_was_short = False
        self._idle_bytes = 0
        self._idle_shared_bytes = 0
        self._ended: dict[str, int] = {}
        self._sent = 0.0
        self._kept: set[int] = set()
        self._remote: set[str] = set()
        self._tracing: Literal["", "on", "over"] = ""

    def browser_kept(self, chromedriver_pid: int) -> None:
        """Record a browser that is kept for the next task; reported when this task ends."""
        self._kept.add(chromedriver_pid)

    def browser_ended(self, chromedriver_pid: int) -> None:
        """Record the end of a browser, kept or not."""
        self._kept.discard(chromedriver_pid)

    def session_opened(self, session_id: str) -> None:
        """Report a session on a Grid at once: nobody could find it after this process died."""
        self._remote.add(session_id)
        self._send()

    def session_closed(self, session_id: str) -> None:
        """Report that a session on a Grid is closed."""
        self._remote.discard(session_id)
        self._send()

    def set_tracing(self, state: Literal["on", "over"]) -> None:
        """Report that allocations are traced: from then on this child's memory says nothing about its tasks."""
        self._tracing = state
        self._send()

    def task_started(self, task_id: str, task_name: str) -> None:
        """Record a task's start."""
        self._running = task_id, task_name
        self._task_started = now()
        if self._first_task_started is None:
            self._first_task_started = self._task_started
            self._idle_bytes, self._idle_shared_bytes = read_memory()
        if not self._last_was_short:
            self._send()

    def task_ended(self, *, force: bool = False) -> None:
        """Record the end of the task started last, if there is one; with `force` report a short one too."""
        if self._running is None:
            return
        _, task_name = self._running
        self._ended[task_name] = self._ended.get(task_name, 0) + 1
        self._running = None
        self._tasks_done += 1
        self._last_task_ended = now()
        self._last_was_short = self._last_task_ended - self._task_started < SHORT_SECONDS
        if force or not self._last_was_short or self._last_task_ended - self._sent > SHORT_SECONDS:
            # Where work waits, the next task begins within a millisecond: only here can idle memory be read.
            self._idle_bytes, self._idle_shared_bytes = read_memory()
            self._send()

    def _send(self) -> None:
        task_id, task_name = self._running or (None, None)
        self._sent = sent = now()
        report = ChildReport(
            pool=self._pool,
            pid=os.getpid(),
            start_ticks=self._start_ticks,
            tasks_done=self._tasks_done,
            task_id=task_id,
            task_name=task_name,
            first_task_started=self._first_task_started or sent,
            last_task_ended=self._last_task_ended,
            sent=sent,
            idle_bytes=self._idle_bytes,
            idle_shared_bytes=self._idle_shared_bytes,
            ended=self._ended,
            kept=sorted(self._kept),
            remote=sorted(self._remote),
            tracing=self._tracing,
        )
        try:
            self._socket.sendto(encode(report), self._address)
        except OSError:
            # No governor, or its queue is full: the next report repeats everything.
            return
        self._ended = {}


_reporter: Reporter | None = None
# Called before the session is ended.
before_end: list[Callable[[], None]] = []


def become_session_leader(**_: object) -> None:
    """Lead a session, by which everything that this child starts can be found.

    Called first after the fork, before a handler of the user can start a process.
    """
    if os.getsid(0) != os.getpid():
        os.setsid()
    start_reporting()


def start_reporting() -> None:
    """Mark what this process starts, and report its tasks, where there is a supervisor."""
    global _reporter
    pool = os.environ.get("RECYCLERY_POOL")
    runtime_dir = os.environ.get("RECYCLERY_RUNTIME_DIR")
    if not pool or not runtime_dir:
        return
    signal.signal(COLLECT_SIGNAL, reap_browsers)
    start_ticks = read_start_ticks()
    os.environ[CHILD_MARKER] = f"{os.environ.get('RECYCLERY_RUN', '')}/{pool}/{os.getpid()}/{start_ticks}"
    _reporter = Reporter(pool, str(governor_socket(Path(runtime_dir))), start_ticks)


def end_session(**_: object) -> None:
    """Stop the other members of our session, with TERM, then KILL; only where we lead it."""
    for call in before_end:
        call()
    me = os.getpid()
    if os.getsid(0) != me:
        return
    deadline = time.monotonic() + TERM_SECONDS
    signum = signal.SIGTERM
    while members := [pid for pid in list_session(me) if pid != me]:
        for pid in members:
            with contextlib.suppress(OSError):
                os.kill(pid, signum)
        reap_browsers()
        if signum == signal.SIGKILL:
            return
        while time.monotonic() < deadline and any(map(is_running, members)):
            time.sleep(0.01)
        signum = signal.SIGKILL


def list_session(session: int) -> list[int]:
    """Return the pids of a session's members that run."""
    members = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # a Path for each process costs ten times as much
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if os.getsid(int(entry)) == session and is_running(int(entry)):
                    members.append(int(entry))
    return members


def is_running(pid: int) -> bool:
    """Tell whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] not in {b"Z", b"X"}


def reap_browsers(*_: object) -> None:
    """Reap browser zombies among our own children: task code that forgot a browser never does.

    Only browsers: another process's exit status belongs to whoever started it. A Popen whose process is
    reaped here reports returncode 0 later (subprocess, Popen._try_wait).
    """
    for pid in list_children():
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith(("chrom", "headless_shell", "google-chrome")):
                os.waitpid(pid, os.WNOHANG)


def list_children() -> list[int]:
    """Return the pids of our children, whichever thread started them."""
    children: list[int] = []
    for listing in Path("/proc/self/task").glob("*/children"):
        # A thread may end meanwhile; this runs in a signal handler, in the middle of a task.
        with contextlib.suppress(OSError):
            children += map(int, listing.read_text().split())
    return children


def read_start_ticks() -> int:
    """Return this process's start in clock ticks since boot (field 22 of /proc/self/stat, proc(5))."""
    stat = Path("/proc/self/stat").read_bytes()
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def read_memory(pid: int | str = "self") -> tuple[int, int]:
    """Return a process's anonymous memory, and how much shared memory it has mapped (proc(5), status)."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    return read_size(status, b"\nRssAnon:"), read_size(status, b"\nRssShmem:")


def read_size(status: bytes, key: bytes) -> int:
    """Return a line's size in bytes; 0 where the kernel has no such line."""
    start = status.find(key)
    return int(status[start + len(key) :].split(None, 1)[0]) << 10 if start >= 0 else 0


def reporter() -> Reporter | None:
    """Return this child's reporter; None in a worker that has no governor."""
    return _reporter
