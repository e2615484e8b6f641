"""A child that traces allocations: compares memory around each run of a task, and reports the difference."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
import os
import select
import socket
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from celery.utils.log import get_logger
from msgspec.structs import replace

from recyclery_worker.link import TraceRequest
from recyclery_worker.tracing.sites import (
    Growth,
    Held,
    Site,
    StackFrame,
    TracedRuns,
    changes_between,
    encode_runs,
    is_of_task,
)

if TYPE_CHECKING:
    from recyclery_worker.tracing.memray_tracer import MemrayTracer

logger = get_logger(__name__)

SEND_SECONDS = 2.0  # The command that waits reads at once, or has been stopped
# The allocation, its caller and the next: each further frame slows every allocation by half again, and more
# where it is one of Celery's large functions, whose line numbers are looked up each time.
TRACEMALLOC_FRAMES = 3


class TracemallocTracer:
    """Compares what Python holds before and after each run; it slows down everything that runs meanwhile."""

    name = "tracemalloc"
    is_full = False

    def __init__(self) -> None:
        self._growth: Growth[tracemalloc.Traceback] = Growth()
        self._before: dict[tracemalloc.Traceback, Held] = {}
        tracemalloc.start(TRACEMALLOC_FRAMES)
        self.stop = tracemalloc.stop

    @property
    def judged(self) -> int:
        """How many runs the sites are computed from."""
        return self._growth.runs

    def begin_run(self) -> None:
        self._before = read_held()

    def end_run(self) -> None:
        self._growth.add(changes_between(self._before, read_held()))
        self._before = {}

    def sites(self) -> list[Site]:
        """Return the sites that grew so far, where that is known before the end."""
        # tracemalloc has the outermost frame first.
        return self._growth.sites(
            lambda place: [StackFrame(each.filename, each.lineno) for each in reversed(place)]
        )

    def send_final(self, report: TracedRuns, link: socket.socket) -> None:
        """Send the final report, or have it sent, after the tracer was stopped."""
        link.sendall(encode_runs(replace(report, sites=self.sites(), over=True)))


def read_held() -> dict[tracemalloc.Traceback, Held]:
    """Return what tasks have allocated since tracing began and still hold, without garbage."""
    gc.collect()
    # tracemalloc's own filters match each allocation instead of each place, which takes seconds.
    return {
        found.traceback: Held(found.size, found.count)
        for found in tracemalloc.take_snapshot().statistics("traceback")
        if is_of_task(files := [frame.filename for frame in found.traceback])
        and tracemalloc.__file__ not in files
    }


def start_tracer() -> MemrayTracer | TracemallocTracer:
    if importlib.util.find_spec("memray") is None:
        return TracemallocTracer()
    from recyclery_worker.tracing.memray_tracer import MemrayTracer  # noqa: PLC0415

    return MemrayTracer()


class TracedChild:
    """Traces until the last run, or until nobody listens; after that the governor retires this child."""

    def __init__(self, request: TraceRequest, set_tracing: Callable[[Literal["on", "over"]], None]) -> None:
        self._request = request
        self._set_tracing = set_tracing
        self._tracer: MemrayTracer | TracemallocTracer | None = None
        self._begun: float | None = None
        self._warm_up: list[float] = []
        self._seconds: list[float] = []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._link.settimeout(SEND_SECONDS)
        set_tracing("on")
        with self._end_on_error():
            self._link.connect(request.address)
            self._tracer = start_tracer()
            self._link.sendall(encode_runs(self._make_report(self._tracer)))

    def wait(self, inbox: int) -> None:
        """Wait for a task, and end the tracing as soon as nobody listens any more."""
        if self._tracer is None:
            return
        listener = self._link.fileno()
        ready, _, _ = select.select([inbox, listener], [], [])
        # Nothing is ever sent to us, so it is readable only when it is closed.
        if listener in ready:
            self._end()

    def task_started(self, name: str) -> None:
        if self._tracer is not None and name == self._request.task:
            with self._end_on_error():
                if self._is_warm:
                    self._tracer.begin_run()
                self._begun = time.monotonic()

    def task_ended(self) -> None:
        """Handle the end of a task: report a run, and end the tracing after the last one."""
        begun, self._begun = self._begun, None
        if self._tracer is None or begun is None:
            return
        seconds = round(time.monotonic() - begun, 6)
        with self._end_on_error():
            if self._is_warm:
                self._seconds.append(seconds)
                self._tracer.end_run()
            else:
                self._warm_up.append(seconds)
            report = self._make_report(self._tracer)
            self._link.sendall(encode_runs(report))
            if len(self._seconds) >= self._request.runs or self._tracer.is_full:
                self._tracer.stop()
                self._tracer.send_final(report, self._link)
                self._finish()

    @property
    def _is_warm(self) -> bool:
        return len(self._warm_up) >= self._request.warm_up

    def _make_report(self, tracer: MemrayTracer | TracemallocTracer) -> TracedRuns:
        return TracedRuns(
            pid=os.getpid(),
            tool=tracer.name,
            warm_up_seconds=self._warm_up,
            seconds=self._seconds,
            judged=tracer.judged,
            sites=tracer.sites() if self._seconds else [],
        )

    @contextlib.contextmanager
    def _end_on_error(self) -> Iterator[None]:
        """End the tracing where it fails; the tasks go on."""
        try:
            yield
        except OSError as error:
            logger.warning("tracing of allocations ended: %s", error)
            self._end()
        except Exception:
            logger.exception("tracing of allocations ended")
            self._end()

    def _end(self) -> None:
        if self._tracer is not None:
            with contextlib.suppress(Exception):
                self._tracer.stop()
        self._finish()

    def _finish(self) -> None:
        self._tracer = None
        self._link.close()
        self._set_tracing("over")
