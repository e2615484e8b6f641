"""Traces with tracemalloc: it sees what Python allocates, and slows down everything that runs meanwhile."""

from __future__ import annotations

import gc
import socket
import tracemalloc
from pathlib import Path

import msgspec

from recyclery_worker.tracing.sites import (
    Frame,
    Growth,
    Held,
    Site,
    TracedRuns,
    changes_between,
    encode_runs,
)

# The allocation, its caller and the next: each further frame slows every allocation by half again, and more
# where it is one of Celery's large functions, whose line numbers are looked up each time.
FRAMES = 3
# Allocations of tracing itself, and of imports, which happen only once.
NOT_THE_TASKS = (tracemalloc.__file__, str(Path(__file__).parent), "<frozen importlib._bootstrap")


class Tracer:
    """Compares what is held before and after each run."""

    name = "tracemalloc"
    is_full = False

    def __init__(self) -> None:
        self._growth: Growth[tracemalloc.Traceback] = Growth()
        self._before: dict[tracemalloc.Traceback, Held] = {}
        tracemalloc.start(FRAMES)

    @property
    def judged(self) -> int:
        """How many runs the sites are computed from."""
        return self._growth.runs

    def begin_run(self) -> None:
        """Prepare for a run."""
        self._before = held()

    def end_run(self) -> None:
        """Compare after the run."""
        self._growth.add(changes_between(self._before, held()))
        self._before = {}

    def sites(self) -> list[Site]:
        """Return the sites that grew so far, where that is known before the end."""
        # tracemalloc has the outermost frame first.
        return self._growth.sites(lambda place: [Frame(each.filename, each.lineno) for each in reversed(place)])

    def stop(self) -> None:
        tracemalloc.stop()

    def send_final(self, report: TracedRuns, link: socket.socket) -> None:
        """Send the final report, or have it sent, after the tracer was stopped."""
        link.sendall(encode_runs(msgspec.structs.replace(report, sites=self.sites(), over=True)))


def held() -> dict[tracemalloc.Traceback, Held]:
    """Return what is held of all that was allocated since tracing began, without garbage."""
    gc.collect()
    found = tracemalloc.take_snapshot().statistics("traceback")
    # tracemalloc's own filters match each allocation instead of each place, which takes seconds.
    return {one.traceback: Held(one.size, one.count) for one in found if is_the_tasks(one.traceback)}


def is_the_tasks(traceback: tracemalloc.Traceback) -> bool:
    """Tell whether an allocation is a task's, not of tracing itself or of an import."""
    return not any(frame.filename.startswith(NOT_THE_TASKS) for frame in traceback)
