"""Python's own tracer: sees what Python allocates, and slows down whatever runs meanwhile."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from pathlib import Path

import msgspec

from recyclery_worker.tracing.sites import Frame, Growth, Held, Seen, Site, changes_between, encode_seen

# The allocation, its caller and the next: each more slows every allocation by half again, and more where it is
# one of Celery's large functions, whose line numbers are looked up each time.
FRAMES = 3
# What tracing itself holds, and what is only loaded once.
NOT_THE_TASKS = (tracemalloc.__file__, str(Path(__file__).parent), "<frozen importlib._bootstrap")


class Tracer:
    """Compares what is held before and after each run."""

    name = "tracemalloc"
    # It keeps nothing but what is held.
    is_full = False

    def __init__(self) -> None:
        self._growth: Growth[tracemalloc.Traceback] = Growth()
        self._before: dict[tracemalloc.Traceback, Held] = {}
        tracemalloc.start(FRAMES)

    @property
    def judged(self) -> int:
        """How many runs the sites are told from."""
        return self._growth.runs

    def begin_run(self) -> None:
        """Look what is held before a run."""
        self._before = held()

    def end_run(self) -> None:
        """Look what is held after it."""
        self._growth.add(changes_between(self._before, held()))
        self._before = {}

    def sites(self) -> list[Site]:
        """Return the sites that grew so far."""
        return [
            Site(
                # tracemalloc tells the outermost frame first.
                frames=[Frame(frame.filename, frame.lineno) for frame in reversed(traceback)],
                bytes_per_run=round(grown.bytes / self.judged),
                count_per_run=round(grown.count / self.judged, 1),
                grew_in=grown.runs,
            )
            for traceback, grown in self._growth.worst()
        ]

    def stop(self) -> None:
        """Trace no more."""
        tracemalloc.stop()

    def tell_all(self, seen: Seen, link: socket.socket) -> None:
        """Tell the sites that grew."""
        link.sendall(encode_seen(msgspec.structs.replace(seen, sites=self.sites(), over=True)))


def held() -> dict[tracemalloc.Traceback, Held]:
    """Return what is held of all that was allocated since tracing began; what is mere garbage is not."""
    gc.collect()
    found = tracemalloc.take_snapshot().statistics("traceback")
    # tracemalloc's own filters match each allocation, not each place: that takes seconds.
    return {one.traceback: Held(one.size, one.count) for one in found if is_the_tasks(one.traceback)}


def is_the_tasks(traceback: tracemalloc.Traceback) -> bool:
    """Tell whether an allocation is neither the tracing's own nor of what is only loaded once."""
    return not any(frame.filename.startswith(NOT_THE_TASKS) for frame in traceback)
