"""keep: one browser for several blocks, made clean between them, and never for longer than was said."""

import http.server
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from recyclery_worker.browser import browser
from recyclery_worker.browser.context import end_kept
from support.browsers import Session, assert_nothing_left, open_session, wait_until

pytestmark = pytest.mark.browser


class Site(http.server.BaseHTTPRequestHandler):
    """Sets a cookie, and shows those that it was sent."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Set-Cookie", "visited=yes; Max-Age=1000")
        self.end_headers()
        self.wfile.write(f"<title>{self.headers.get('Cookie', 'none')}</title>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    yield
    end_kept()


def use(keep: int = 5, **wanted: object) -> Session:
    with browser(keep=keep, **wanted) as driver:  # type: ignore[arg-type]
        driver.get("data:text/html,<title>page</title>")
        return open_session(driver)


def test_the_next_block_gets_the_same_browser_and_the_last_one_ends_it() -> None:
    first, second, third = use(keep=3), use(keep=3), use(keep=3)
    assert first.profile == second.profile == third.profile
    assert_nothing_left(first)


def test_without_keep_each_block_has_a_browser_of_its_own() -> None:
    with browser() as driver:
        first = open_session(driver)
    with browser() as driver:
        assert open_session(driver).profile != first.profile
    assert_nothing_left(first)


def test_the_next_block_finds_no_tab_cookie_or_stored_data(site: str) -> None:
    for _ in range(2):
        with browser(keep=5) as driver:
            assert driver.window_handles == [driver.current_window_handle]
            driver.get(site)
            assert driver.title == "none"
            stored = driver.execute_script("return [localStorage.mark, sessionStorage.mark]")
            databases = driver.execute_async_script("indexedDB.databases().then(arguments[0])")
            assert (stored, databases) == ([None, None], [])
            driver.get(site)
            assert driver.title == "visited=yes"
            driver.execute_script("localStorage.mark = sessionStorage.mark = 1; indexedDB.open('mark')")
            driver.switch_to.new_window("tab")
            driver.get(site)


def test_a_block_that_raises_ends_the_browser() -> None:
    first = use()
    with pytest.raises(RuntimeError, match="from the body"), browser(keep=5) as driver:  # noqa: PT012
        assert open_session(driver).profile == first.profile
        raise RuntimeError("from the body")
    assert_nothing_left(first)


def test_a_block_that_wants_another_browser_ends_the_kept_one() -> None:
    first = use(user_agent="one")
    second = use(user_agent="two")
    assert second.profile != first.profile
    assert_nothing_left(first)


def test_a_browser_that_holds_too_much_is_not_kept() -> None:
    assert_nothing_left(use(keep_bytes=50 << 20))


def test_a_browser_that_is_too_old_is_not_kept() -> None:
    assert_nothing_left(use(keep_seconds=0))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_kept_browser_that_was_killed_or_frozen_meanwhile_is_replaced(number: signal.Signals) -> None:
    first = use()
    os.kill(first.browser_pid(), number)
    assert use().profile != first.profile
    assert_nothing_left(first)


def test_a_block_within_a_block_gets_a_browser_of_its_own_and_one_of_them_is_kept() -> None:
    with browser(keep=5) as outer:
        first = open_session(outer)
        second = use()
        assert second.profile != first.profile
    assert_nothing_left(first)
    assert use().profile == second.profile


def test_a_page_that_does_not_let_itself_be_closed_costs_the_browser() -> None:
    with browser(keep=5) as driver:
        first = open_session(driver)
        driver.execute_script("setTimeout(() => alert('stay'), 0)")
        assert wait_until(lambda: bool(driver.switch_to.alert), 5)
    assert_nothing_left(first)


def test_a_forked_child_neither_uses_nor_ends_its_parents_browser() -> None:
    first = use()
    here, there = multiprocessing.Pipe()

    def child(told: Connection) -> None:
        end_kept()
        told.send(use().profile)
        end_kept()

    process = multiprocessing.get_context("fork").Process(target=child, args=(there,))
    process.start()
    second: Path = here.recv()
    process.join()
    assert second != first.profile
    assert use().profile == first.profile
