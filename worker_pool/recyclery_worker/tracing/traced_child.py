"""A child that was told to trace: looks around each run of one task, and says what it saw, as long as somebody
listens."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

from celery.utils.log import get_logger

from recyclery_worker.link import Trace
from recyclery_worker.tracing.sites import Seen, Site, encode_seen

logger = get_logger(__name__)

# Whoever waits reads at once, or is stopped: then nobody waits.
TELL_SECONDS = 2.0


class Tracer(Protocol):
    """Looks at this process's memory around runs."""

    name: str

    @property
    def judged(self) -> int:
        """How many runs the sites are told from."""

    @property
    def is_full(self) -> bool:
        """Whether it has no room for more."""

    def begin_run(self) -> None:
        """Look before a run."""

    def end_run(self) -> None:
        """Look after it."""

    def sites(self) -> list[Site]:
        """Return the sites that grew so far, as far as that is known before the end."""

    def stop(self) -> None:
        """Trace no more."""

    def tell_all(self, seen: Seen, link: socket.socket) -> None:
        """Tell all that was seen, or have it told, once it traces no more."""


def start_tracer() -> Tracer:
    """Begin to trace: with memray where it is installed."""
    if importlib.util.find_spec("memray") is not None:
        from recyclery_worker.tracing import memray_tracer  # noqa: PLC0415

        return memray_tracer.Tracer()
    from recyclery_worker.tracing import tracemalloc_tracer  # noqa: PLC0415

    return tracemalloc_tracer.Tracer()


class Canary:
    """Traces from the order on until the last run, or until nobody listens; then this child is to leave."""

    def __init__(self, order: Trace, tracing_is: Callable[[Literal["on", "over"]], None]) -> None:
        self._order = order
        self._tracing_is = tracing_is
        self._tracer: Tracer | None = None
        self._begun: float | None = None
        self._warm_up: list[float] = []
        self._seconds: list[float] = []
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._link.settimeout(TELL_SECONDS)
        tracing_is("on")
        with self._or_end():
            self._link.connect(order.address)
            self._tracer = start_tracer()
            self._link.sendall(encode_seen(self._describe(self._tracer)))

    def wait(self, inbox: int) -> None:
        """Wait for a task, and end the tracing at once when nobody listens any more."""
        if self._tracer is None:
            return
        listener = self._link.fileno()
        ready, _, _ = select.select([inbox, listener], [], [])
        # Nothing is ever said to us: what can be read is the end.
        if listener in ready:
            self._end()

    def task_started(self, name: str) -> None:
        """Look before a run of the task."""
        if self._tracer is not None and name == self._order.task:
            with self._or_end():
                if self._is_warm:
                    self._tracer.begin_run()
                self._begun = time.monotonic()

    def task_ended(self) -> None:
        """Look after a run of the task, say what was seen, and end after the last."""
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
            seen = self._describe(self._tracer)
            self._link.sendall(encode_seen(seen))
            if len(self._seconds) >= self._order.runs or self._tracer.is_full:
                self._tracer.stop()
                self._tracer.tell_all(seen, self._link)
                self._leave()

    @property
    def _is_warm(self) -> bool:
        return len(self._warm_up) >= self._order.warm_up

    def _describe(self, tracer: Tracer) -> Seen:
        return Seen(
            pid=os.getpid(),
            tool=tracer.name,
            warm_up_seconds=self._warm_up,
            seconds=self._seconds,
            judged=tracer.judged,
            sites=tracer.sites() if self._seconds else [],
        )

    @contextlib.contextmanager
    def _or_end(self) -> Iterator[None]:
        """End the tracing where it fails: the tasks go on."""
        try:
            yield
        except OSError as error:
            logger.warning("allocations are traced no more: %s", error)
            self._end()
        except Exception:
            logger.exception("allocations are traced no more")
            self._end()

    def _end(self) -> None:
        """Trace no more, whatever was seen."""
        if self._tracer is not None:
            with contextlib.suppress(Exception):
                self._tracer.stop()
        self._leave()

    def _leave(self) -> None:
        self._tracer = None
        self._link.close()
        self._tracing_is("over")
