"""The page's API: what is now, what was, and which task leaks. Read by GET; nothing is changed here."""

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
from typing import Any
from urllib.parse import parse_qs

import h11
import msgspec

from recyclery import __version__
from recyclery.control.problems import Trouble, find_troubles
from recyclery.history.reader import SPANS, NoHistory, Span, Timeline, read_timeline
from recyclery.serve.http import Answer, Handler
from recyclery.serve.page.files import HEADERS
from recyclery.serve.page.leaks import Leaks, find_no_room, make_report
from recyclery.serve.page.shared import Shared
from recyclery.serve.session import is_signed_in
from recyclery.serve.status import Status

STATUS_SECONDS = 1.0
LEAKS_SECONDS = 60.0
# A disk that hangs leaves the page without a history, not without an answer.
HISTORY_WAIT_SECONDS = 5.0
LEAKS_WAIT_SECONDS = 20.0


class Now(msgspec.Struct):
    """What `recyclery top` shows. `at` is seconds since 1970."""

    at: float
    host: str
    version: str
    signed_in: bool
    status: Status
    troubles: list[Trouble]


class Past(msgspec.Struct):
    """What the history has of a stretch of time, or why it has nothing."""

    timeline: Timeline | None = None
    problem: str = ""


@dataclass(frozen=True)
class Sources:
    """Whom the API asks."""

    glance: Callable[[], Coroutine[Any, Any, Status]]
    history: Path


class Api:
    """What is asked by many at a time is made once for all of them."""

    def __init__(self, sources: Sources, token: str) -> None:
        self._sources = sources
        self._token = token
        self._status = Shared(sources.glance, STATUS_SECONDS)
        self._leaks = Shared(self._make_leaks, LEAKS_SECONDS)
        # At least as often as a line gets a new step.
        self._pasts = {
            name: Shared(partial(self._read_past, span), min(span.step_seconds, 60))
            for name, span in SPANS.items()
        }
        # A thread of its own: were the history's disk to hang, what the tick needs threads for must not wait.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="page")

    def handlers(self) -> Mapping[str, Handler]:
        """Return the answers by path."""
        return {"/api/status": self.status, "/api/history": self.history, "/api/leaks": self.leaks}

    async def status(self, request: h11.Request) -> Answer:
        """Answer with what is now."""
        status = await self._status.get()
        return answer_json(
            Now(
                at=time.time(),
                host=os.uname().nodename,
                version=__version__,
                signed_in=bool(self._token) and is_signed_in(request, self._token, time.time()),
                status=status,
                troubles=find_troubles(status, status.container.oom_kills),
            )
        )

    async def history(self, request: h11.Request) -> Answer:
        """Answer with what was, over the stretch of time that is asked for."""
        query = request.target.partition(b"?")[2].decode("latin-1")
        name = parse_qs(query).get("span", [""])[0]
        past = self._pasts.get(name)
        if past is None:
            return Answer(HTTPStatus.BAD_REQUEST, f"span must be one of {', '.join(SPANS)}\n", HEADERS)
        try:
            async with asyncio.timeout(HISTORY_WAIT_SECONDS):
                return answer_json(await past.get())
        except TimeoutError:
            return answer_json(Past(problem="The history takes long to read; it is tried again."))

    async def leaks(self, _: h11.Request) -> Answer:
        """Answer with the report, which may be a minute old."""
        try:
            async with asyncio.timeout(LEAKS_WAIT_SECONDS):
                return answer_json(await self._leaks.get())
        except TimeoutError:
            return answer_json(Leaks(time.time(), problem="The report is being made: a moment."))

    async def _read_past(self, span: Span) -> Past:
        try:
            read = partial(read_timeline, self._sources.history, span, time.time())
            return Past(await asyncio.get_running_loop().run_in_executor(self._reader, read))
        except (NoHistory, sqlite3.Error) as error:
            return Past(problem=str(error))

    async def _make_leaks(self) -> Leaks:
        no_room = find_no_room((await self._status.get()).container)
        return Leaks(time.time(), problem=no_room) if no_room else await make_report(self._sources.history)


def answer_json(document: msgspec.Struct) -> Answer:
    """Answer with a document."""
    text = msgspec.json.encode(document).decode()
    return Answer(HTTPStatus.OK, text, {**HEADERS, "Content-Type": "application/json"})
