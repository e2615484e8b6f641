"""A child that traces allocations: compares memory around each run of a task, and reports the difference."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from celery.utils.log import get_logger

from recyclery_worker.link import Trace
from recyclery_worker.tracing.sites import TracedRuns, encode_runs

if TYPE_CHECKING:
    from recyclery_worker.tracing import memray_tracer, tracemalloc_tracer

    Tracer = memray_tracer.Tracer | tracemalloc_tracer.Tracer

logger = get_logger(__name__)

# The command that waits reads at once, or has been stopped.
SEND_SECONDS = 2.0


def start_tracer() -> Tracer:
    """Start tracing, with memray where it is installed."""
    if importlib.util.find_spec("memray") is not None:
        from recyclery_worker.tracing import memray_tracer  # noqa: PLC0415

        return memray_tracer.Tracer()
    from recyclery_worker.tracing import tracemalloc_tracer  # noqa: PLC0415

    return tracemalloc_tracer.Tracer()


class TracedChild:
    """Traces until the last run, or until nobody listens; after that the governor retires this child."""

    def __init__(self, request: Trace, set_tracing: Callable[[Literal["on", "over"]], None]) -> None:
        self._request = request
        self._set_tracing = set_tracing
        self._tracer: Tracer | None = None
        self._begun: float | None = None
        self._warm_up: list[float] = []
        self._seconds: list[float] = []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._link.settimeout(SEND_SECONDS)
        set_tracing("on")
        with self._or_end():
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
        """Handle the start of a task."""
        if self._tracer is not None and name == self._request.task:
            with self._or_end():
                if self._is_warm:
                    self._tracer.begin_run()
                self._begun = time.monotonic()

    def task_ended(self) -> None:
        """Handle the end of a task: report a run, and end the tracing after the last one."""
        begun, self._begun = self._begun, None
        if self._tracer is None or begun is None:
            return
        seconds = round(time.monotonic() - begun, 6)
        with self._or_end():
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

    def _make_report(self, tracer: Tracer) -> TracedRuns:
        return TracedRuns(
            pid=os.getpid(),
            tool=tracer.name,
            warm_up_seconds=self._warm_up,
            seconds=self._seconds,
            judged=tracer.judged,
            sites=tracer.sites() if self._seconds else [],
        )

    @contextlib.contextmanager
    def _or_end(self) -> Iterator[None]:
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
        """Stop tracing, whatever was found."""
        if self._tracer is not None:
            with contextlib.suppress(Exception):
                self._tracer.stop()
        self._finish()

    def _finish(self) -> None:
        self._tracer = None
        self._link.close()
        self._set_tracing("over")
