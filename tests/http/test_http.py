"""The governor's HTTP: what it answers, and what a client cannot do to it. Real connections on a real port."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus

import h11
import pytest

from recyclery.config.settings import Address, open_listener
from recyclery.health.heartbeat import Heartbeat
from recyclery.http import server as http_server
from recyclery.http.routes import find_stop, find_unready
from recyclery.http.server import GetHandler, Response, serve_handlers
from support.ports import free_port


async def hello(_: h11.Request) -> Response:
    return Response(HTTPStatus.OK, "hello\n")


async def broken(_: h11.Request) -> Response:
    raise ValueError("a secret")


HANDLERS = {"/hello": hello, "/broken": broken}
Ask = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def serving(handlers: Mapping[str, GetHandler] = HANDLERS) -> AsyncIterator[int]:
    """Serve on a port of the test's own."""
    port = free_port()
    server = asyncio.create_task(serve_handlers(Address(host="127.0.0.1", port=port), handlers))
    try:
        while True:
            with suppress(ConnectionError):
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            await asyncio.sleep(0.01)
        yield port
    finally:
        server.cancel()


async def ask(port: int, request: bytes, *, ends: bool = False) -> bytes:
    """Send bytes, and with `ends` no more; return all that comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        writer.write(request)
        await writer.drain()
        if ends:
            writer.write_eof()
    try:
        return await reader.read()
    finally:
        writer.close()


def ask_once(request: bytes, *, ends: bool = False) -> bytes:
    """Serve for one request; return the answer."""

    async def serve() -> bytes:
        async with asyncio.timeout(20), serving() as port:
            return await ask(port, request, ends=ends)

    return asyncio.run(serve())


def test_a_path_is_answered_with_its_length_and_the_connection_closed() -> None:
    head, _, body = ask_once(b"GET /hello?a=b HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert {b"Content-Length: 6", b"Connection: close", b"Cache-Control: no-store"} <= {*lines}
    assert body == b"hello\n"


def test_a_head_is_answered_without_the_text() -> None:
    head, _, body = ask_once(b"HEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n").partition(b"\r\n\r\n")
    assert b"Content-Length: 6" in head
    assert body == b""


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /hello HTTP/1.0\r\n\r\n", b"200 OK"),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", b"404 Not Found"),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", b"405 Method Not Allowed"),
        (b"GET /hello HTTP/1.1\r\n\r\n", b"400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400 Bad Request"),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nA: \x00\r\n\r\n", b"400 Bad Request"),
        (b"GET /" + b"x" * 200_000, b"431 Request Header Fields Too Large"),
    ],
)
def test_a_request_that_is_odd_gets_the_status_that_says_why(request_bytes: bytes, status: bytes) -> None:
    assert ask_once(request_bytes).startswith(b"HTTP/1.1 " + status + b"\r\n")


def test_a_client_that_leaves_before_it_asked_gets_nothing() -> None:
    assert ask_once(b"", ends=True) == b""
    assert ask_once(b"GET /hello HTT", ends=True).startswith(b"HTTP/1.1 400 ")


def test_an_answer_that_fails_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    answer = ask_once(b"GET /broken HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in answer
    assert "HTTP /broken" in caplog.text


def test_clients_that_dawdle_are_let_go_and_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_SECONDS", 0.5)

    async def dawdle() -> None:
        async with asyncio.timeout(20), serving() as port:
            slow = [asyncio.create_task(ask(port, b"GET /hello HT")) for _ in range(20)]
            await asyncio.sleep(0.05)
            assert b"hello" in await ask(port, b"GET /hello HTTP/1.0\r\n\r\n")
            assert not any(client.done() for client in slow)
            for answer in await asyncio.gather(*slow):
                assert answer.startswith(b"HTTP/1.1 408 ")

    asyncio.run(dawdle())


def test_a_client_that_still_sends_when_it_is_answered_is_not_cut_off() -> None:
    async def send_on() -> bytes:
        async with asyncio.timeout(20), serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /" + b"x" * 2 * http_server.MAX_REQUEST_BYTES)
            answer = await reader.readline()
            # A connection that was closed takes the first of them, and is broken at the next.
            for _ in range(3):
                writer.write(b"x" * 1000)
                await writer.drain()
                await asyncio.sleep(0.01)
            answer += await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    assert asyncio.run(send_on()).startswith(b"HTTP/1.1 431 ")


def test_one_client_more_than_there_is_room_for_is_sent_away_until_another_leaves() -> None:
    async def try_to_ask(port: int) -> bytes:
        try:
            return await ask(port, b"GET /hello HTTP/1.0\r\n\r\n")
        except ConnectionError:
            return b""

    async def crowd() -> None:
        async with asyncio.timeout(20), serving() as port:
            others = [
                await asyncio.open_connection("127.0.0.1", port) for _ in range(http_server.MAX_CONNECTIONS)
            ]
            assert await try_to_ask(port) == b""
            others[0][1].close()
            while b"hello" not in await try_to_ask(port):
                pass
            for _, writer in others:
                writer.close()

    asyncio.run(crowd())


def test_a_port_that_is_taken_is_told_once_and_served_as_soon_as_it_is_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(http_server, "LISTEN_RETRY_SECONDS", 0.02)

    async def wait_for_it() -> bytes:
        address = Address(host="127.0.0.1", port=free_port())
        taken = open_listener(address)
        server = asyncio.create_task(serve_handlers(address, HANDLERS))
        try:
            async with asyncio.timeout(20):
                await asyncio.sleep(0.2)
                taken.close()
                while True:
                    with suppress(ConnectionError):
                        return await ask(address.port, b"GET /hello HTTP/1.0\r\n\r\n")
                    await asyncio.sleep(0.02)
        finally:
            server.cancel()

    assert b"hello" in asyncio.run(wait_for_it())
    assert caplog.text.count("Address already in use") == 1


def test_without_a_host_it_listens_on_every_interface_of_both_kinds() -> None:
    with open_listener(Address(host="", port=free_port())) as listener:
        port = listener.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        if listener.family == socket.AF_INET6:
            socket.create_connection(("::1", port), timeout=5).close()


# Probes.


def test_a_governor_whose_loop_stands_still_is_neither_alive_nor_ready() -> None:
    last = Heartbeat(100.0, {"slow": "running"})
    assert (find_stop(last, 109.0), find_unready(last, 109.0)) == (None, None)
    assert find_stop(last, 111.0) == "the governor has not been heard of for 11 s"
    assert find_unready(last, 111.0) == find_stop(last, 111.0)


def test_a_governor_that_has_not_looked_yet_is_not_ready() -> None:
    assert find_stop(None, 1.0) == find_unready(None, 1.0) == "the governor has not taken a snapshot yet"


def test_a_pool_that_does_not_answer_is_not_ready_but_alive() -> None:
    last = Heartbeat(100.0, {"fast": "running", "slow": "not answering"})
    assert find_stop(last, 101.0) is None
    assert find_unready(last, 101.0) == "slow is not answering"
