"""memray, where it is installed: it sees native allocations too, and costs a run less than Python's own tracer.

It writes down every allocation, with a sign of the time every few milliseconds. A run's own are those between
two such signs, so a short pause is made before and after each run. `main` reads that in a process of its own:
it takes a second for every ten megabytes, which the child's next task is not to wait for.
"""

from __future__ import annotations

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
from recyclery_worker.tracing.sites import Frame, Growth, Held, Seen, Site, encode_seen

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
        environment = {name: value for name, value in os.environ.items() if name != CHILD_MARKER}
        reader = subprocess.Popen(
            [sys.executable, "-m", "recyclery_worker.tracing.memray_tracer"],
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


FRAMES = 16
# Of all signs none is left out: so many are 14 hours.
MOST_SIGNS = 10_000_000
# CPython's arenas hold its small objects, which are told of one by one.
ARENA_BYTES = 1 << 20
# What is only loaded once.
LOADING = ("<frozen importlib._bootstrap", "<frozen zipimport")
OWN_FOLDER = str(Path(__file__).parent)
# Nobody waits for us but a person.
NICE = 10

Stack = tuple[tuple[str, str, int], ...]


class Span(msgspec.Struct, frozen=True):
    """One run with its pauses, in milliseconds since 1970."""

    pause: float
    begun: float
    ended: float
    paused: float


class Order(msgspec.Struct, frozen=True):
    """What to read: the file and the socket to tell of it on, by number, and what was seen without it."""

    file: int
    link: int
    spans: list[Span]
    seen: Seen


def main() -> int:
    """Carry out the order on standard input."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    os.nice(NICE)
    growth = read_growth(Path(f"/proc/self/fd/{order.file}"), order.spans)
    seen = msgspec.structs.replace(order.seen, judged=growth.runs, sites=list_sites(growth), over=True)
    with socket.socket(fileno=order.link) as link:
        # The child had a time limit on it.
        link.setblocking(True)
        link.sendall(encode_seen(seen))
    return 0


def read_growth(file: Path, spans: Sequence[Span]) -> Growth[Stack]:
    """Return what the runs on file left."""
    reader = memray.FileReader(file, max_memory_records=MOST_SIGNS)
    signs = [sign.time for sign in reader.get_memory_snapshots()]
    windows = [window for span in spans if (window := find_window(span, signs)) is not None]
    runs: list[dict[Stack, Held]] = [{} for _ in windows]
    for record in reader.get_temporal_allocation_records(merge_threads=True):
        kept = [
            (run, Held(interval.n_bytes, interval.n_allocations))
            for interval in record.intervals
            if interval.deallocated_before_snapshot is None
            and (run := find_run(interval.allocated_before_snapshot, windows)) is not None
            and not is_arena(record.allocator, interval.n_bytes, interval.n_allocations)
        ]
        stack: Stack = tuple(record.stack_trace(FRAMES)) if kept else ()
        if is_the_tasks(stack):
            for run, held in kept:
                runs[run][stack] = add(runs[run].get(stack, Held(0, 0)), held)
    growth: Growth[Stack] = Growth()
    for changes in runs:
        growth.add(changes.items())
    return growth


def list_sites(growth: Growth[Stack]) -> list[Site]:
    """Return the sites that grew."""
    return [
        Site(
            frames=[Frame(file, line, function) for function, file, line in stack],
            bytes_per_run=round(grown.bytes / growth.runs),
            count_per_run=round(grown.count / growth.runs, 1),
            grew_in=grown.runs,
        )
        for stack, grown in growth.worst()
    ]


def find_window(span: Span, signs: Sequence[int]) -> tuple[int, int] | None:
    """Return the numbers of the last sign before a run and the first after it.

    None where there is none in a pause: the machine was too busy.
    """
    low, high = bisect_right(signs, span.begun) - 1, bisect_left(signs, span.ended)
    if low < 0 or signs[low] < span.pause or high >= len(signs) or signs[high] > span.paused:
        return None
    return low, high


def find_run(sign: int, windows: Sequence[tuple[int, int]]) -> int | None:
    """Return in which run something was allocated, between a sign and the one before; None where in none."""
    return next((run for run, (low, high) in enumerate(windows) if low < sign <= high), None)


def add(one: Held, other: Held) -> Held:
    """Return both together."""
    return Held(one.bytes + other.bytes, one.count + other.count)


def is_arena(allocator: int, size: int, count: int) -> bool:
    """Tell whether these are arenas."""
    return allocator == memray.AllocatorType.MMAP and size == count * ARENA_BYTES


def is_the_tasks(stack: Stack) -> bool:
    """Tell whether an allocation is neither the tracing's own nor of what is only loaded once."""
    return bool(stack) and not any(file.startswith((OWN_FOLDER, *LOADING)) for _, file, _ in stack)


if __name__ == "__main__":
    sys.exit(main())
