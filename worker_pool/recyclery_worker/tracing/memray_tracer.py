"""Traces with memray, where that is installed: it sees native allocations too, and costs less than tracemalloc.

memray writes every allocation to a file, with a timestamp every few milliseconds. The allocations of a run are
those between two timestamps, so there is a short pause before and after each run. The file is read by a process
of its own (`main`): that takes a second for every ten megabytes, for which the child's next task must not wait.
"""

import gc
import os
import socket
import subprocess
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from pathlib import Path

import memray
import msgspec

from recyclery_worker.link import CHILD_MARKER
from recyclery_worker.tracing.sites import Growth, Held, Site, StackFrame, TracedRuns, encode_runs, is_of_task

TIMESTAMP_MS = 5
TIMESTAMP_WAIT_SECONDS = 0.05
MAX_FILE_BYTES = 256 << 20  # The file may be in memory
MEMRAY_FRAMES = 16
MAX_TIMESTAMPS = 10_000_000  # More than any file has: 14 hours of them
ARENA_BYTES = 1 << 20  # CPython's arenas hold its small objects, each of which is reported on its own
READER_NICENESS = 10  # Only a person waits for the reader

Stack = tuple[tuple[str, str, int], ...]


class RunTimes(msgspec.Struct, frozen=True):
    """One run with its pauses, in milliseconds since 1970."""

    pause: float
    begun: float
    ended: float
    paused: float


class ReadRequest(msgspec.Struct, frozen=True):
    """The reader's input: descriptors of the file and of the socket, and the report without sites."""

    file: int
    link: int
    spans: list[RunTimes]
    report: TracedRuns


class MemrayTracer:
    """Has memray write a file, which another process reads at the end."""

    name = "memray"
    judged = 0

    def __init__(self) -> None:
        self._spans: list[RunTimes] = []
        self._pause = self._begun = 0.0
        self._file, path = tempfile.mkstemp(prefix="recyclery-trace-")
        self._tracker = memray.Tracker(
            destination=memray.FileDestination(path, overwrite=True, compress_on_exit=False),
            memory_interval_ms=TIMESTAMP_MS,
            trace_python_allocators=True,
        )
        self._tracker.__enter__()
        # However this process ends, no file is left behind.
        Path(path).unlink()

    @property
    def is_full(self) -> bool:
        return os.fstat(self._file).st_size > MAX_FILE_BYTES

    def begin_run(self) -> None:
        self._pause = now_ms()
        time.sleep(TIMESTAMP_WAIT_SECONDS)
        self._begun = now_ms()

    def end_run(self) -> None:
        gc.collect()
        ended = now_ms()
        time.sleep(TIMESTAMP_WAIT_SECONDS)
        self._spans.append(RunTimes(self._pause, self._begun, ended, now_ms()))

    def sites(self) -> list[Site]:
        return []  # They are read at the end.

    def stop(self) -> None:
        self._tracker.__exit__(None, None, None)

    def send_final(self, report: TracedRuns, link: socket.socket) -> None:
        """Have another process read the file and send the final report; it outlives this child."""
        request = ReadRequest(self._file, link.fileno(), self._spans, report)
        reader = subprocess.Popen(
            [sys.executable, "-m", "recyclery_worker.tracing.memray_tracer"],
            stdin=subprocess.PIPE,
            pass_fds=(self._file, link.fileno()),
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != CHILD_MARKER},
        )
        assert reader.stdin is not None  # noqa: S101  # made with a pipe
        with reader.stdin:
            reader.stdin.write(msgspec.json.encode(request))


def now_ms() -> float:
    """Return the wall clock, the clock of memray's timestamps."""
    return time.time() * 1000


def main() -> int:
    """Read the file of the request on standard input, and send the final report."""
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=ReadRequest)
    os.nice(READER_NICENESS)
    growth = read_growth(Path(f"/proc/self/fd/{request.file}"), request.spans)
    sites = growth.sites(lambda stack: [StackFrame(file, line, function) for function, file, line in stack])
    report = msgspec.structs.replace(request.report, judged=growth.runs, sites=sites, over=True)
    with socket.socket(fileno=request.link) as link:
        # The child had set a timeout.
        link.setblocking(True)
        link.sendall(encode_runs(report))
    return 0


def read_growth(file: Path, spans: Sequence[RunTimes]) -> Growth[Stack]:
    reader = memray.FileReader(file, max_memory_records=MAX_TIMESTAMPS)
    timestamps = [snapshot.time for snapshot in reader.get_memory_snapshots()]
    windows = [window for span in spans if (window := find_window(span, timestamps)) is not None]
    runs: list[dict[Stack, Held]] = [{} for _ in windows]
    for record in reader.get_temporal_allocation_records(merge_threads=True):
        kept = [
            (run, Held(interval.n_bytes, interval.n_allocations))
            for interval in record.intervals
            if interval.deallocated_before_snapshot is None
            and (run := find_run(interval.allocated_before_snapshot, windows)) is not None
            and not (
                record.allocator == memray.AllocatorType.MMAP
                and interval.n_bytes == interval.n_allocations * ARENA_BYTES
            )
        ]
        stack: Stack = tuple(record.stack_trace(MEMRAY_FRAMES)) if kept else ()
        if stack and is_of_task(file for _, file, _ in stack):
            for run, held in kept:
                before = runs[run].get(stack, Held(0, 0))
                runs[run][stack] = Held(before.bytes + held.bytes, before.count + held.count)
    growth: Growth[Stack] = Growth()
    for changes in runs:
        growth.add(changes.items())
    return growth


def find_window(span: RunTimes, timestamps: Sequence[int]) -> tuple[int, int] | None:
    """Return the numbers of the last timestamp before a run and the first one after it.

    None where a pause has no timestamp, as the machine was too busy.
    """
    low, high = bisect_right(timestamps, span.begun) - 1, bisect_left(timestamps, span.ended)
    if low < 0 or timestamps[low] < span.pause or high >= len(timestamps) or timestamps[high] > span.paused:
        return None
    return low, high


def find_run(timestamp: int, windows: Sequence[tuple[int, int]]) -> int | None:
    """Return the run in which something was allocated, by the number of the next timestamp, if any."""
    return next((run for run, (low, high) in enumerate(windows) if low < timestamp <= high), None)


if __name__ == "__main__":
    sys.exit(main())
