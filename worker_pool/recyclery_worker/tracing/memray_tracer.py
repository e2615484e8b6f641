"""memray, where it is installed: it sees native allocations too, and costs a run less than Python's own tracer.

It writes down every allocation, with a sign of the time every few milliseconds. A run's own are those between
two such signs, so a short pause is made before and after each run.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memray
import msgspec

from recyclery_worker.pool.child import MARKER
from recyclery_worker.tracing.messages import Seen, Site
from recyclery_worker.tracing.read_memray import Order, Span

SIGN_EVERY_MS = 5
PAUSE_SECONDS = 0.05
# The file may lie in memory.
MOST_FILE_BYTES = 256 << 20


class Tracer:
    """Has memray write everything down; another process reads it when that is over."""

    name = "memray"
    judged = 0

    def __init__(self) -> None:
        self._spans: list[Span] = []
        self._pause = self._begun = 0.0
        self._file, path = tempfile.mkstemp(prefix="recyclery-trace-")
        self._tracker = memray.Tracker(
            destination=memray.FileDestination(path, overwrite=True, compress_on_exit=False),
            memory_interval_ms=SIGN_EVERY_MS,
            trace_python_allocators=True,
        )
        self._tracker.__enter__()
        # However this process ends, nothing is left behind.
        Path(path).unlink()

    @property
    def is_full(self) -> bool:
        """Whether the file is as large as it may be."""
        return os.fstat(self._file).st_size > MOST_FILE_BYTES

    def begin_run(self) -> None:
        """Make sure that the run can be told from what was before."""
        self._pause = now_ms()
        time.sleep(PAUSE_SECONDS)
        self._begun = now_ms()

    def end_run(self) -> None:
        """Make sure that the run can be told from what comes after."""
        gc.collect()
        ended = now_ms()
        time.sleep(PAUSE_SECONDS)
        self._spans.append(Span(self._pause, self._begun, ended, now_ms()))

    def sites(self) -> list[Site]:
        """Return none: they are read when it is over."""
        return []

    def stop(self) -> None:
        """Trace no more."""
        self._tracker.__exit__(None, None, None)

    def tell_all(self, seen: Seen, link: socket.socket) -> None:
        """Have another process read the file, and tell of it: it outlives this child."""
        order = Order(self._file, link.fileno(), self._spans, seen)
        environment = {name: value for name, value in os.environ.items() if name != MARKER}
        reader = subprocess.Popen(
            [sys.executable, "-m", "recyclery_worker.tracing.read_memray"],
            stdin=subprocess.PIPE,
            pass_fds=(self._file, link.fileno()),
            start_new_session=True,
            env=environment,
        )
        assert reader.stdin is not None  # noqa: S101  # made with a pipe
        with reader.stdin:
            reader.stdin.write(msgspec.json.encode(order))


def now_ms() -> float:
    """Return the wall clock, which memray's signs tell."""
    return time.time() * 1000
