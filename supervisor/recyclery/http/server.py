"""HTTP for probes and people: one small request on each connection, answered, and the connection closed.

The port may be open to strangers, so what a client can take is bounded: time, bytes, and how many there are.
h11 reads and writes the messages; it does no I/O.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus

import h11

from recyclery.config.listener import open_listener
from recyclery.config.settings import Address

REQUEST_SECONDS = 5.0
ANSWER_SECONDS = 10.0
# For the client to close first: with something of it unread, closing would take the answer away from it.
LINGER_SECONDS = 1.0
MAX_REQUEST_BYTES = 8 << 10
MAX_BODY_BYTES = 4 << 10
MAX_CONNECTIONS = 64
RETRY_SECONDS = 5.0
METHODS = (b"GET", b"HEAD")

log = logging.getLogger("recyclery")


@dataclass(frozen=True)
class Answer:
    """A status, a text, and headers beside those that every answer has."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


Handler = Callable[[h11.Request], Awaitable[Answer]]
# Answers a POST, whose body it gets as well.
Taker = Callable[[h11.Request, bytes], Awaitable[Answer]]


class BodyTooLarge(Exception):
    """A request brings more than anything asked for would need."""


async def serve_http(
    address: Address, handlers: Mapping[str, Handler], takers: Mapping[str, Taker] = {}
) -> None:
    """Serve the paths until cancelled; where the port is taken, go on trying."""
    told = False
    while True:
        try:
            listener = open_listener(address)
        except OSError as error:
            if not told:
                log.error("HTTP on %s: %s; trying again", address, os.strerror(error.errno or 0))
            told = True
            await asyncio.sleep(RETRY_SECONDS)
        else:
            server = await asyncio.start_server(Desk(handlers, takers).receive, sock=listener)
            log.info("HTTP on %s", address)
            await server.serve_forever()


class Desk:
    """Receives clients, each to be answered once, and only so many at a time."""

    def __init__(self, handlers: Mapping[str, Handler], takers: Mapping[str, Taker]) -> None:
        self._handlers = handlers
        self._takers = takers
        self._open = 0

    async def receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one client, and let go of it."""
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                await self._converse(reader, writer)
        except OSError:
            # It left, or would not take its answer in time.
            pass
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        request: h11.Request | None = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await read_request(reader, connection)
                if request is None:
                    return
                taken = request.method == b"POST" and path_of(request) in self._takers
                body = await read_body(reader, connection) if taken else b""
            answer = await self._answer(request, body)
        except TimeoutError:
            answer = tell_status(HTTPStatus.REQUEST_TIMEOUT)
        except BodyTooLarge:
            answer = tell_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except h11.RemoteProtocolError as error:
            answer = tell_status(HTTPStatus(error.error_status_hint))
        # `drain` is then done when the kernel has all of it.
        writer.transport.set_write_buffer_limits(0)
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(encode(connection, answer, with_text=request is None or request.method != b"HEAD"))
            await writer.drain()
        writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS):
                while await reader.read(MAX_REQUEST_BYTES):
                    pass

    async def _answer(self, request: h11.Request, body: bytes) -> Answer:
        path = path_of(request)
        handler, taker = self._handlers.get(path), self._takers.get(path)
        try:
            if request.method == b"POST" and taker is not None:
                return await taker(request, body)
            if request.method not in METHODS or (handler is None and taker is not None):
                allowed = [*(["POST"] if taker else ()), *(["GET", "HEAD"] if handler or not taker else ())]
                return tell_status(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ", ".join(allowed)})
            return await handler(request) if handler is not None else tell_status(HTTPStatus.NOT_FOUND)
        except Exception:  # a page that fails must not take the connection's task with it unanswered
            # Without what follows the path: people put secrets there.
            log.exception("HTTP %s", path)
            return tell_status(HTTPStatus.INTERNAL_SERVER_ERROR)


def path_of(request: h11.Request) -> str:
    """Return what is asked for, without what follows a question mark."""
    return request.target.partition(b"?")[0].decode("latin-1")


async def read_request(reader: asyncio.StreamReader, connection: h11.Connection) -> h11.Request | None:
    """Read a request's head; None where the client left instead. Raises h11.RemoteProtocolError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(MAX_REQUEST_BYTES))
    return event if isinstance(event, h11.Request) else None


async def read_body(reader: asyncio.StreamReader, connection: h11.Connection) -> bytes:
    """Read what follows a request's head. Raises BodyTooLarge, h11.RemoteProtocolError."""
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(MAX_REQUEST_BYTES))
        elif isinstance(event, h11.Data):
            body += event.data
        if len(body) > MAX_BODY_BYTES:
            raise BodyTooLarge
    return body


def find_header(request: h11.Request, name: bytes) -> str | None:
    """Return the first header of that name, which is in small letters; None where there is none."""
    return next((value.decode("latin-1") for key, value in request.headers if key == name), None)


def tell_status(status: HTTPStatus, headers: Mapping[str, str] = {}) -> Answer:
    """Answer with the status's own phrase."""
    return Answer(status, f"{status.phrase}\n", headers)


def encode(connection: h11.Connection, answer: Answer, *, with_text: bool) -> bytes:
    """Return an answer's bytes; its length is told also where the text is left out."""
    text = answer.text.encode()
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(text)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **answer.headers,
    }
    head = h11.Response(status_code=answer.status, headers=list(headers.items()), reason=answer.status.phrase)
    events = [head, *([h11.Data(data=text)] if with_text else ()), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in events)
