"""Ending sessions on a Selenium Grid, or on whatever is at its address."""

import asyncio
import base64
import http.server
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from recyclery.act import selenium_grid as grid
from recyclery.decide.actions import EndGridSession, Outcome
from recyclery.observe.snapshot import Owner

ACTION = EndGridSession(Owner("slow", 20, 2000), "a1/b2")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """So little that a test need not wait."""
    monkeypatch.setattr(grid, "GRID_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(grid, "GRID_RETRY_SECONDS", 0.01)


@contextmanager
def remote_end(*codes: int) -> Iterator[tuple[str, list[tuple[str, str, str | None]]]]:
    """Run a remote end that answers with these codes in turn; yield its address and what it was asked."""
    asked: list[tuple[str, str, str | None]] = []
    left = list(codes)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            asked.append((self.command, self.path, self.headers["Authorization"]))
            self.send_response(left.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def end(url: str) -> Outcome:
    return asyncio.run(grid.end_grid_session(ACTION, url))


def test_a_session_is_deleted_and_told_in_one_line() -> None:
    with remote_end(200) as (address, asked):
        outcome = end(f"http://{address}/wd/hub/")
    assert asked == [("DELETE", "/wd/hub/session/a1%2Fb2", None)]
    assert outcome == Outcome(
        done=True, line=f"end Grid session a1/b2 of slow/20, which is dead; ended at {address}"
    )


def test_the_user_and_password_of_the_address_are_sent_and_never_told() -> None:
    with remote_end(200, 500, 500, 500) as (address, asked):
        lines = [end(f"http://me:s%40cret@{address}").line for _ in range(2)]
    expected = base64.b64encode(b"me:s@cret").decode()
    assert {header for _, _, header in asked} == {f"Basic {expected}"}
    assert [word for word in ("s@cret", "s%40cret", expected, "me:") if word in "".join(lines)] == []


def test_a_session_that_has_ended_already_is_as_wanted() -> None:
    with remote_end(404) as (address, _):
        assert end(f"http://{address}").done


def test_a_remote_end_that_has_trouble_is_asked_again() -> None:
    with remote_end(500, 503, 200) as (address, asked):
        assert end(f"http://{address}").done
    assert len(asked) == 3


def test_after_three_tries_it_is_left_and_told() -> None:
    with remote_end(500, 500, 503, 200) as (address, asked):
        outcome = end(f"http://{address}")
    assert (outcome.done, len(asked)) == (False, 3)
    assert outcome.line.endswith(f"not done in 3 tries at {address}: HTTP 503")


def test_a_remote_end_that_is_away_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = end(f"http://127.0.0.1:{port}")
    assert not outcome.done
    assert "Connection refused" in outcome.line


def test_a_remote_end_that_hangs_is_given_up_while_the_loop_goes_on() -> None:
    async def both(url: str) -> tuple[Outcome, int]:
        ending = asyncio.create_task(grid.end_grid_session(ACTION, url))
        turns = 0
        while not ending.done():
            await asyncio.sleep(0.01)
            turns += 1
        return await ending, turns

    with socket.create_server(("127.0.0.1", 0)) as server:
        began = time.monotonic()
        outcome, turns = asyncio.run(both(f"http://127.0.0.1:{server.getsockname()[1]}"))
    assert not outcome.done
    assert "timed out" in outcome.line
    assert turns > 10
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "grid:4444"])
def test_without_an_address_over_http_nothing_is_asked(url: str) -> None:
    outcome = end(url)
    assert not outcome.done
    assert outcome.line.endswith("not done: the supervisor has no usable SELENIUM_REMOTE_URL")


@pytest.mark.parametrize("url", ["http://me:pw@[::1", "http://grid:99999", "http://me:pw@ho st/"])
def test_an_address_that_cannot_be_used_is_told_without_its_password(url: str) -> None:
    outcome = end(url)
    assert not outcome.done
    assert "pw" not in outcome.line
