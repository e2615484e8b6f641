"""The page's API: the status, the history, and the leak report. It is read-only."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs

import h11
import msgspec

from recyclery import __version__
from recyclery.control.status_schema import Problem, Status, find_status_problems
from recyclery.history.reader import SPANS, NoHistory, Timeline, TimeSpan, read_timeline
from recyclery.http.auth import is_signed_in
from recyclery.http.page_leaks import Leaks, find_no_room, run_leaks_report
from recyclery.http.server import GetHandler, Response
from recyclery.http.static import SECURITY_HEADERS

STATUS_SECONDS = 1.0
LEAKS_SECONDS = 60.0
# A hanging disk leaves the page without its history, not without a response.
HISTORY_WAIT_SECONDS = 5.0
LEAKS_WAIT_SECONDS = 20.0
T = TypeVar("T")


class SharedResult(Generic[T]):
    """Caches an async result and coalesces concurrent callers."""

    def __init__(self, make: Callable[[], Coroutine[Any, Any, T]], seconds: float) -> None:
        self._make = make
        self._seconds = seconds
        self._task: asyncio.Task[T] | None = None
        self._begun = 0.0

    async def get(self) -> T:
        """Return the result, at most `seconds` old. It is completed even if all callers are cancelled."""
        now = time.monotonic()
        if self._task is None or (self._task.done() and now - self._begun >= self._seconds):
            self._begun = now
            self._task = asyncio.create_task(self._make())
        return await asyncio.shield(self._task)


class Now(msgspec.Struct):
    """What `recyclery top` shows. `at` is in seconds since 1970."""

    at: float
    host: str
    version: str
    signed_in: bool
    status: Status
    troubles: list[Problem]


class Past(msgspec.Struct):
    """The history of a span of time, or why there is none."""

    timeline: Timeline | None = None
    problem: str = ""


@dataclass(frozen=True)
class Sources:
    """Where the API reads from."""

    read_quick_status: Callable[[], Coroutine[Any, Any, Status]]
    history: Path


class Api:
    """The handlers; concurrent requests share one result."""

    def __init__(self, sources: Sources, token: str) -> None:
        self._sources = sources
        self._token = token
        self._status = SharedResult(sources.read_quick_status, STATUS_SECONDS)
        self._leaks = SharedResult(self._make_leaks, LEAKS_SECONDS)
        # At least once per step of the lines.
        self._pasts = {
            name: SharedResult(partial(self._read_past, span), min(span.step_seconds, 60))
            for name, span in SPANS.items()
        }
        # A separate thread: if the history's disk hangs, the threads that the tick needs must stay free.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="page")

    def handlers(self) -> Mapping[str, GetHandler]:
        """Return the handlers by path."""
        return {"/api/status": self.status, "/api/history": self.history, "/api/leaks": self.leaks}

    async def status(self, request: h11.Request) -> Response:
        """Return the status now."""
        status = await self._status.get()
        return json_response(
            Now(
                at=time.time(),
                host=os.uname().nodename,
                version=__version__,
                signed_in=bool(self._token) and is_signed_in(request, self._token),
                status=status,
                troubles=find_status_problems(status, status.container.oom_kills),
            )
        )

    async def history(self, request: h11.Request) -> Response:
        """Return the history of the requested span."""
        query = request.target.partition(b"?")[2].decode("latin-1")
        name = parse_qs(query).get("span", [""])[0]
        past = self._pasts.get(name)
        if past is None:
            return Response(
                HTTPStatus.BAD_REQUEST, f"span must be one of {', '.join(SPANS)}\n", SECURITY_HEADERS
            )
        try:
            async with asyncio.timeout(HISTORY_WAIT_SECONDS):
                return json_response(await past.get())
        except TimeoutError:
            return json_response(Past(problem="Reading the history takes long; trying again."))

    async def leaks(self, _: h11.Request) -> Response:
        """Return the leak report, up to a minute old."""
        try:
            async with asyncio.timeout(LEAKS_WAIT_SECONDS):
                return json_response(await self._leaks.get())
        except TimeoutError:
            return json_response(Leaks(time.time(), problem="The report is being made."))

    async def _read_past(self, span: TimeSpan) -> Past:
        try:
            read = partial(read_timeline, self._sources.history, span, time.time())
            return Past(await asyncio.get_running_loop().run_in_executor(self._reader, read))
        except (NoHistory, sqlite3.Error) as error:
            return Past(problem=str(error))

    async def _make_leaks(self) -> Leaks:
        no_room = find_no_room((await self._status.get()).container)
        return Leaks(time.time(), problem=no_room) if no_room else await run_leaks_report(self._sources.history)


def json_response(document: msgspec.Struct) -> Response:
    """Return a document as a response."""
    text = msgspec.json.encode(document).decode()
    return Response(HTTPStatus.OK, text, {**SECURITY_HEADERS, "Content-Type": "application/json"})
