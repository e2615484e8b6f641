"""An HTTP server for probes and people: each connection serves one small request and is then closed.

The port may be open to strangers, so time, bytes and the number of connections are bounded. h11 parses and
writes the messages; it does no I/O.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path

import h11

from recyclery.config.settings import Address, open_listener

REQUEST_SECONDS = 5.0
RESPONSE_SECONDS = 10.0
# Time for the client to close first: closing with unread input resets the connection and loses the response.
CLIENT_CLOSE_SECONDS = 1.0
MAX_REQUEST_BYTES = 8 << 10
MAX_BODY_BYTES = 4 << 10
MAX_CONNECTIONS = 64
LISTEN_RETRY_SECONDS = 5.0
METHODS = (b"GET", b"HEAD")
CONTENT_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Nothing from other hosts, nothing inline, and no framing by other pages.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

log = logging.getLogger("recyclery")


@dataclass(frozen=True)
class Response:
    """A status, a text, and headers beyond those of every response."""

    status: HTTPStatus
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)


GetHandler = Callable[[h11.Request], Awaitable[Response]]
# Handles a POST request and its body.
PostHandler = Callable[[h11.Request, bytes], Awaitable[Response]]


class BodyTooLarge(Exception):
    """The body of a request is larger than any valid one."""


async def serve_handlers(
    address: Address, handlers: Mapping[str, GetHandler], post_handlers: Mapping[str, PostHandler] = {}
) -> None:
    """Serve the paths until cancelled; retry while the port is taken."""
    logged = False
    while True:
        try:
            listener = open_listener(address)
        except OSError as error:
            if not logged:
                log.error("HTTP on %s: %s; trying again", address, os.strerror(error.errno or 0))
            logged = True
            await asyncio.sleep(LISTEN_RETRY_SECONDS)
        else:
            server = await asyncio.start_server(HttpServer(handlers, post_handlers).serve_client, sock=listener)
            log.info("HTTP on %s", address)
            await server.serve_forever()


class HttpServer:
    """Serves a bounded number of clients at a time, with one response each."""

    def __init__(self, handlers: Mapping[str, GetHandler], post_handlers: Mapping[str, PostHandler]) -> None:
        self._handlers = handlers
        self._post_handlers = post_handlers
        self._open = 0

    async def serve_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one client and close its connection."""
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                await self._exchange(reader, writer)
        except OSError:
            # The client left, or did not read the response in time.
            pass
        finally:
            self._open -= 1
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        request: h11.Request | None = None
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                request = await read_request(reader, connection)
                if request is None:
                    return
                has_body = request.method == b"POST" and path_of(request) in self._post_handlers
                body = await read_body(reader, connection) if has_body else b""
            response = await self._respond(request, body)
        except TimeoutError:
            response = status_response(HTTPStatus.REQUEST_TIMEOUT)
        except BodyTooLarge:
            response = status_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        except h11.RemoteProtocolError as error:
            response = status_response(HTTPStatus(error.error_status_hint))
        # `drain` then returns once the kernel has everything.
        writer.transport.set_write_buffer_limits(0)
        async with asyncio.timeout(RESPONSE_SECONDS):
            with_text = request is None or request.method != b"HEAD"
            writer.write(encode_response(connection, response, with_text=with_text))
            await writer.drain()
        writer.write_eof()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLIENT_CLOSE_SECONDS):
                while await reader.read(MAX_REQUEST_BYTES):
                    pass

    async def _respond(self, request: h11.Request, body: bytes) -> Response:
        path = path_of(request)
        handler, post_handler = self._handlers.get(path), self._post_handlers.get(path)
        try:
            if request.method == b"POST" and post_handler is not None:
                return await post_handler(request, body)
            if request.method not in METHODS or (handler is None and post_handler is not None):
                reads = ["GET", "HEAD"] if handler or not post_handler else []
                allowed = [*(["POST"] if post_handler else ()), *reads]
                return status_response(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": ", ".join(allowed)})
            return await handler(request) if handler is not None else status_response(HTTPStatus.NOT_FOUND)
        except Exception:  # a failing page still gets a response
            # Without the query: people put secrets there.
            log.exception("HTTP %s", path)
            return status_response(HTTPStatus.INTERNAL_SERVER_ERROR)


def path_of(request: h11.Request) -> str:
    """Return the path of a request, without its query."""
    return request.target.partition(b"?")[0].decode("latin-1")


async def read_request(reader: asyncio.StreamReader, connection: h11.Connection) -> h11.Request | None:
    """Read a request's head; None if the client closed the connection. Raises h11.RemoteProtocolError."""
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(MAX_REQUEST_BYTES))
    return event if isinstance(event, h11.Request) else None


async def read_body(reader: asyncio.StreamReader, connection: h11.Connection) -> bytes:
    """Read a request's body. Raises BodyTooLarge, h11.RemoteProtocolError."""
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
    """Return the first header of that name, given in lower case; None without one."""
    return next((value.decode("latin-1") for key, value in request.headers if key == name), None)


def status_response(status: HTTPStatus, headers: Mapping[str, str] = {}) -> Response:
    """Return a response whose text is the phrase of its status."""
    return Response(status, f"{status.phrase}\n", headers)


def file_response(
    text: str, name: str, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] = {}
) -> Response:
    kind = f"{CONTENT_TYPES[Path(name).suffix]}; charset=utf-8"
    return Response(status, text, {**SECURITY_HEADERS, "Content-Type": kind, **headers})


def encode_response(connection: h11.Connection, response: Response, *, with_text: bool) -> bytes:
    """Return the bytes of a response; its Content-Length is the same without the text."""
    text = response.text.encode()
    headers = {
        "Date": formatdate(usegmt=True),
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(text)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **response.headers,
    }
    status = response.status
    head = h11.Response(status_code=status, headers=list(headers.items()), reason=status.phrase)
    events = [head, *([h11.Data(data=text)] if with_text else ()), h11.EndOfMessage()]
    return b"".join(connection.send(event) or b"" for event in events)
