"""The same code on a Selenium Grid; a real chromedriver stands for one."""

import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recyclery_worker.browser import BrowserNotStarted, browser, find_browser
from recyclery_worker.browser.context import end_kept
from recyclery_worker.link import ChildReport, decode_report
from recyclery_worker.pool import child
from recyclery_worker.pool.child import Reporter
from support.browsers import wait_until

PAGE = "data:text/html,<title>a title</title>"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def running_grid(*arguments: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    command = [str(find_browser().chromedriver), f"--port={port}", *arguments]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as grid:
        try:
            assert wait_until(lambda: is_ready(url), 10)
            yield url, grid
        finally:
            os.killpg(grid.pid, signal.SIGKILL)


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/status", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def is_open(url: str, session_id: str | None) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/session/{session_id}/title", timeout=5):
            return True
    except urllib.error.HTTPError:
        return False


@pytest.fixture
def options_for_the_grid(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """As root the stand-in's Chrome needs what a Grid's image gives its own."""
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", "")
    return {"arguments": ["--no-sandbox", "--disable-dev-shm-usage"]}


@pytest.fixture
def governor(monkeypatch: pytest.MonkeyPatch, private_tmp: Path) -> Iterator[socket.socket]:
    """The governor's socket, to which this process reports as a pool child."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reports:
        reports.bind(str(private_tmp / "g"))
        reports.settimeout(5)
        monkeypatch.setattr(child, "_reporter", Reporter("slow", str(private_tmp / "g"), 1))
        yield reports


def next_report(governor: socket.socket) -> ChildReport:
    report = decode_report(governor.recv(1 << 16))
    assert isinstance(report, ChildReport)
    return report


@pytest.mark.browser
def test_the_session_is_on_the_grid_and_closed_after_the_block(
    monkeypatch: pytest.MonkeyPatch, options_for_the_grid: dict[str, object], governor: socket.socket
) -> None:
    with running_grid() as (url, _):
        monkeypatch.setenv("SELENIUM_REMOTE_URL", url)
        with browser(**options_for_the_grid) as driver:  # type: ignore[arg-type]
            assert next_report(governor).remote == [driver.session_id]
            driver.get(PAGE)
            assert driver.title == "a title"
            assert driver.execute_cdp_cmd("Browser.getVersion", {})["product"].startswith("Chrome")
            assert is_open(url, driver.session_id)
        assert not is_open(url, driver.session_id)
        assert next_report(governor).remote == []


@pytest.mark.browser
def test_a_session_on_the_grid_can_be_kept(
    monkeypatch: pytest.MonkeyPatch, options_for_the_grid: dict[str, object]
) -> None:
    with running_grid() as (url, _):
        monkeypatch.setenv("SELENIUM_REMOTE_URL", url)
        ids = []
        for _ in range(2):
            with browser(keep=3, **options_for_the_grid) as driver:  # type: ignore[arg-type]
                driver.get(PAGE)
                ids.append(driver.session_id)
        assert ids[0] == ids[1]
        end_kept()
        assert not is_open(url, ids[0])


@pytest.mark.browser
def test_a_session_whose_end_was_not_seen_stays_on_the_list(
    monkeypatch: pytest.MonkeyPatch, options_for_the_grid: dict[str, object], governor: socket.socket
) -> None:
    with running_grid() as (url, grid):
        monkeypatch.setenv("SELENIUM_REMOTE_URL", url)
        with browser(**options_for_the_grid) as driver:  # type: ignore[arg-type]
            opened = next_report(governor).remote
            grid.send_signal(signal.SIGKILL)
        governor.setblocking(False)
        with pytest.raises(BlockingIOError):
            next_report(governor)
        assert opened == [driver.session_id]


def test_a_grid_that_is_away_is_an_error_that_names_it_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    port = free_port()
    monkeypatch.setenv("SELENIUM_REMOTE_URL", f"http://me:secret@127.0.0.1:{port}")
    with (
        pytest.raises(BrowserNotStarted, match=rf"127\.0\.0\.1:{port} \(SELENIUM_REMOTE_URL\)") as told,
        browser(),
    ):
        pass
    assert "secret" not in str(told.value)


def test_a_grid_that_takes_a_session_and_never_answers_is_an_error_in_time(
    monkeypatch: pytest.MonkeyPatch, silent_server: tuple[str, object]
) -> None:
    monkeypatch.setenv("SELENIUM_REMOTE_URL", silent_server[0])
    with (
        pytest.raises(BrowserNotStarted, match="timed out"),
        browser(page_load_timeout_seconds=0.5, command_timeout_seconds=1),
    ):
        pass
