"""browser(): what it yields, and that nothing of it is left, whatever ends the block."""

import builtins
import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, ModuleType
from typing import NoReturn

import pytest
from selenium import webdriver

from recyclery_worker.browser import (
    BrowserMissing,
    BrowserNotStarted,
    BrowserPair,
    browser,
    find_browser,
)
from recyclery_worker.browser import session as module
from recyclery_worker.browser.session import QUIT_SECONDS
from support.browsers import Session, assert_nothing_left, defunct_children, open_session, wait_until

PAGE = "data:text/html,<title>a title</title><h1>text</h1>"


class SoftLimit(Exception):
    """Stands for SoftTimeLimitExceeded: raised by a signal handler, wherever the body is."""


@pytest.fixture
def raise_on_sigusr1() -> Iterator[None]:
    def handle(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SoftLimit

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


# Without Chromium.


def test_importing_the_module_imports_no_selenium() -> None:
    code = "import sys, recyclery_worker.browser; sys.exit('selenium' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_selenium_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch, private_tmp: Path) -> None:
    real_import = builtins.__import__

    def import_without_selenium(name: str, *rest: object) -> ModuleType:
        if name.startswith("selenium"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", import_without_selenium)
    with pytest.raises(BrowserMissing, match=r"pip install 'recyclery\[browser\]'$"), browser():
        pass
    assert list(private_tmp.iterdir()) == []


def test_a_page_load_timeout_above_the_command_timeout_is_refused() -> None:
    with (
        pytest.raises(ValueError, match=r"^command_timeout_seconds must be above .*: 60.0 and 90$"),
        browser(page_load_timeout_seconds=90),
    ):
        pass


@pytest.fixture
def fake_pair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> BrowserPair:
    """A pair whose programs leave at once with status 3."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    pair = BrowserPair(program, program, "156.0.0.0")
    monkeypatch.setattr(module, "find_browser", lambda: pair)
    return pair


@pytest.mark.usefixtures("fake_pair")
@pytest.mark.parametrize("way", ["arguments", "options"])
def test_a_profile_folder_of_the_caller_is_refused(way: str) -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--user-data-dir=/tmp/mine")
    given = {"arguments": ["--user-data-dir=/tmp/mine"]} if way == "arguments" else {"options": options}
    with pytest.raises(ValueError, match=r"^--user-data-dir"), browser(**given):
        pass


def test_a_chromedriver_that_leaves_at_once_is_an_error_that_names_it(
    fake_pair: BrowserPair, private_tmp: Path
) -> None:
    with (
        pytest.raises(BrowserNotStarted, match=rf"{fake_pair.chromedriver} did not start: .* code was: 3"),
        browser(),
    ):
        pass
    assert list(private_tmp.iterdir()) == []
    assert defunct_children() == []


# With Chromium.


@pytest.mark.browser
def test_a_page_loads_and_its_title_is_read() -> None:
    with browser() as driver:
        driver.get(PAGE)
        assert driver.title == "a title"


@pytest.mark.browser
def test_the_whole_session_bears_the_profiles_name_and_leaves_after_the_block() -> None:
    with browser() as driver:
        driver.get(PAGE)
        session = open_session(driver)
        assert len(session.processes()) >= 10
    assert_nothing_left(session)


@pytest.mark.browser
def test_chrome_keeps_its_temporary_files_in_the_profile(private_tmp: Path) -> None:
    with browser() as driver:
        assert list(private_tmp.iterdir()) == [open_session(driver).profile]


@pytest.mark.browser
def test_window_size_and_arguments_reach_chrome() -> None:
    with browser(window_size=(640, 480), arguments=["--user-agent=mine"]) as driver:
        size = driver.get_window_size()
        assert (size["width"], size["height"]) == (640, 480)
        assert driver.execute_script("return navigator.userAgent") == "mine"


@pytest.mark.browser
def test_the_callers_options_are_used_and_not_changed() -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--user-agent=mine")
    before = copy.deepcopy(options.to_capabilities())
    with browser(options=options) as driver:
        assert driver.execute_script("return navigator.userAgent") == "mine"
    assert options.to_capabilities() == before


@pytest.mark.browser
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_when_the_body_raises_and_its_exception_comes_out(error: type[BaseException]) -> None:
    with pytest.raises(error, match=r"^from the body$"), browser() as driver:  # noqa: PT012
        session = open_session(driver)
        raise error("from the body")
    assert_nothing_left(session)


@pytest.mark.browser
def test_nothing_is_left_when_the_body_has_quit_itself() -> None:
    with browser() as driver:
        session = open_session(driver)
        driver.quit()
    assert_nothing_left(session)


@pytest.mark.browser
def test_a_frozen_browser_is_gone_soon_after_the_block() -> None:
    with browser() as driver:
        session = open_session(driver)
        os.kill(session.browser_pid(), signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 4 * QUIT_SECONDS
    assert_nothing_left(session)


@pytest.mark.browser
def test_a_frozen_chromedriver_is_gone_soon_after_the_block() -> None:
    with browser() as driver:
        session = open_session(driver)
        os.kill(driver.service.process.pid, signal.SIGSTOP)
        began = time.monotonic()
    assert time.monotonic() - began < 4 * QUIT_SECONDS
    assert_nothing_left(session)


@pytest.mark.browser
def test_a_command_to_a_frozen_browser_ends_after_one_command_timeout() -> None:
    with browser(page_load_timeout_seconds=1, command_timeout_seconds=2) as driver:
        os.kill(open_session(driver).browser_pid(), signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(Exception, match="Read timed out"):
            _ = driver.title
        assert 1.9 < time.monotonic() - began < 20  # Selenium's own limit is 120 s.


@pytest.mark.browser
def test_nothing_is_left_when_chromedriver_is_killed_in_the_body() -> None:
    with pytest.raises(Exception, match=r"Connection|refused|aborted"), browser() as driver:  # noqa: PT012
        session = open_session(driver)
        os.kill(driver.service.process.pid, signal.SIGKILL)
        driver.get(PAGE)
    assert_nothing_left(session)


@pytest.mark.browser
def test_nothing_is_left_when_chrome_is_killed_in_the_body() -> None:
    with browser() as driver:
        session = open_session(driver)
        os.kill(session.browser_pid(), signal.SIGKILL)
    assert_nothing_left(session)


@pytest.mark.browser
@pytest.mark.usefixtures("raise_on_sigusr1")
def test_nothing_is_left_when_a_signal_handler_raises_in_a_hanging_get(
    silent_server: tuple[str, threading.Event],
) -> None:
    url, asked = silent_server

    def interrupt() -> None:
        asked.wait()
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(SoftLimit), browser() as driver:  # noqa: PT012
        session = open_session(driver)
        driver.get(url)
    assert_nothing_left(session)


@pytest.mark.browser
@pytest.mark.usefixtures("raise_on_sigusr1")
def test_nothing_is_left_when_a_signal_handler_raises_during_the_quit() -> None:
    with pytest.raises(SoftLimit), browser() as driver:  # noqa: PT012
        session = open_session(driver)
        os.kill(session.browser_pid(), signal.SIGSTOP)  # So that quit() takes a while.
        timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
    assert_nothing_left(session)


@pytest.mark.browser
def test_a_page_that_never_answers_ends_after_the_page_load_timeout(
    silent_server: tuple[str, threading.Event],
) -> None:
    with browser(page_load_timeout_seconds=0.5) as driver:
        began = time.monotonic()
        with pytest.raises(Exception, match="timeout"):
            driver.get(silent_server[0])
        assert time.monotonic() - began < 10
        driver.get(PAGE)
        assert driver.title == "a title"


@pytest.mark.browser
def test_a_chrome_that_crashes_at_its_start_is_an_error_and_leaves_nothing(
    fake_pair: BrowserPair, monkeypatch: pytest.MonkeyPatch, private_tmp: Path
) -> None:
    pair = BrowserPair(fake_pair.chrome, find_browser().chromedriver, "156.0.0.0")
    monkeypatch.setattr(module, "find_browser", lambda: pair)
    began = time.monotonic()
    with pytest.raises(BrowserNotStarted, match=rf"^{pair.chrome} under .* did not start: "), browser():
        pass
    assert time.monotonic() - began < 20  # On its own, chromedriver takes 60 s to notice.
    assert list(private_tmp.iterdir()) == []
    assert defunct_children() == []


@pytest.mark.browser
def test_a_port_that_another_chromedriver_has_is_an_error_and_the_other_session_lives_on(
    monkeypatch: pytest.MonkeyPatch, private_tmp: Path
) -> None:
    with browser() as first:
        session = open_session(first)
        monkeypatch.setattr("selenium.webdriver.common.utils.free_port", lambda: first.service.port)
        with pytest.raises(BrowserNotStarted, match=r"port \d+ was taken$"), browser():
            pass
        assert list(private_tmp.iterdir()) == [session.profile]
        first.get(PAGE)
        assert first.title == "a title"
    assert_nothing_left(session)


OWNER = """
import time
from recyclery_worker.browser import browser
with browser() as driver:
    print(driver.capabilities["chrome"]["userDataDir"], flush=True)
    time.sleep(600)
"""


@pytest.mark.browser
def test_the_whole_session_goes_when_its_owner_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        session = Session(Path(owner.stdout.readline().strip()))
        assert len(session.processes()) >= 10
        owner.kill()
        gone = wait_until(lambda: session.processes() == {}, seconds=30)
        left = session.processes()
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert gone, left


@pytest.mark.browser
def test_two_browsers_at_once_do_not_disturb_each_other() -> None:
    with browser() as first:
        with browser() as second:
            session = open_session(second)
            assert open_session(first).profile != session.profile
        assert_nothing_left(session)
        first.get(PAGE)
        assert first.title == "a title"
