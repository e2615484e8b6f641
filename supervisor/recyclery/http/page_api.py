"""The page's API: the status, the history, and the leak report. It is read-only."""

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar
from urllib.parse import parse_qs

import h11
import msgspec

from recyclery import __version__
from recyclery.config import secrets
from recyclery.control.status_schema import ContainerStatus, Problem, Status, find_status_problems
from recyclery.history.reader import SPANS, NoHistory, Timeline, TimeSpan, read_timeline
from recyclery.http.auth import is_signed_in
from recyclery.http.server import SECURITY_HEADERS, GetHandler, Response

STATUS_SECONDS = 1.0
LEAKS_SECONDS = 60.0
# A hanging disk leaves the page without its history, not without a response.
HISTORY_WAIT_SECONDS = 5.0
LEAKS_WAIT_SECONDS = 20.0
DEADLINE_SECONDS = 60.0
# It takes 38 MiB for 8000 runs in two pools (scripts/bench history); there may be more pools.
NEEDED_BYTES = 64 << 20
MAX_REPORT_BYTES = 1 << 20
MAX_ERROR_BYTES = 1 << 10
REPORT_NICENESS = 10
OOM_SCORE_ADJ = "1000"

T = TypeVar("T")
ReadQuickStatus: TypeAlias = Callable[[], Coroutine[Any, Any, Status]]


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


class Leaks(msgspec.Struct):
    """The report as `recyclery leaks --json` prints it, and when it was made; or why there is none."""

    at: float = msgspec.field(default_factory=time.time)
    report: msgspec.Raw | None = None
    problem: str = ""


class Api:
    """The handlers; concurrent requests share one result."""

    def __init__(self, read_quick_status: ReadQuickStatus, history: Path, token: str) -> None:
        self._history = history
        self._token = token
        self._status = SharedResult(read_quick_status, STATUS_SECONDS)
        self._leaks = SharedResult(self._make_leaks, LEAKS_SECONDS)
        # At least once per step of the lines.
        self._pasts = {
            name: SharedResult(partial(self._read_past, span), min(span.step_seconds, 60))
            for name, span in SPANS.items()
        }
        # A separate thread: if the history's disk hangs, the threads that the tick needs must stay free.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="page")

    def handlers(self) -> Mapping[str, GetHandler]:
        return {"/api/status": self.status, "/api/history": self.history, "/api/leaks": self.leaks}

    async def status(self, request: h11.Request) -> Response:
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
            return json_response(Leaks(problem="The report is being made."))

    async def _read_past(self, span: TimeSpan) -> Past:
        try:
            read = partial(read_timeline, self._history, span, time.time())
            return Past(await asyncio.get_running_loop().run_in_executor(self._reader, read))
        except (NoHistory, sqlite3.Error) as error:
            return Past(problem=str(error))

    async def _make_leaks(self) -> Leaks:
        no_room = find_no_room((await self._status.get()).container)
        return Leaks(problem=no_room) if no_room else await run_leaks_report(self._history)


def json_response(document: msgspec.Struct) -> Response:
    text = msgspec.json.encode(document).decode()
    return Response(HTTPStatus.OK, text, {**SECURITY_HEADERS, "Content-Type": "application/json"})


def find_no_room(container: ContainerStatus) -> str | None:
    """Return why the report is not made now; None if there is memory for it."""
    if container.floor_bytes + NEEDED_BYTES <= container.high_bytes:
        return None
    return "Too little memory is free to make this report now; trying again."


async def run_leaks_report(history: Path) -> Leaks:
    """Make the leak report in a `recyclery leaks` process of low priority, the OOM killer's first choice.

    Evaluating thousands of runs takes seconds, and more memory than the governor may use.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "recyclery", "leaks", "--json", "--history", str(history)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in secrets.ALL},
        limit=MAX_REPORT_BYTES,
    )
    try:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, REPORT_NICENESS)
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(OOM_SCORE_ADJ)
        async with asyncio.timeout(DEADLINE_SECONDS):
            printed = await read_all(process)
            if printed is None:
                return Leaks(problem="The report is too long for a page: see `recyclery leaks`.")
            error_output = await process.stderr.read(MAX_ERROR_BYTES) if process.stderr else b""
            code = await process.wait()
    except TimeoutError:
        return Leaks(problem=f"The report took longer than {DEADLINE_SECONDS:g} s.")
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if code != 0:
        return Leaks(problem=error_output.decode(errors="replace").strip())
    return Leaks(report=msgspec.Raw(printed))


async def read_all(process: asyncio.subprocess.Process) -> bytes | None:
    """Return the output of a process; None if it is too long."""
    assert process.stdout is not None  # noqa: S101  # as it was started
    printed = b""
    while piece := await process.stdout.read(1 << 16):
        printed += piece
        if len(printed) > MAX_REPORT_BYTES:
            return None
    return printed
