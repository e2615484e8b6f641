"""What a caller may want of a browser, and what Chrome is told for it."""

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import celery
import pytest
from selenium import webdriver

from recyclery_worker.browser import browser, context
from recyclery_worker.browser.context import RunningTask, running_task
from recyclery_worker.browser.session import BrowserRequest
from support.browsers import wait_until

PAGE = "data:text/html,<title>a title</title>"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"page_load_timeout_seconds": 90}, "must be above"),
        ({"page_load_strategy": "lazy"}, "'lazy'.* normal, eager, none"),
        ({"proxy": "http://me:secret@host:1"}, "has a user name"),
    ],
)
def test_what_chrome_cannot_do_is_refused_and_no_password_shown(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        BrowserRequest(**wanted)
    assert "secret" not in str(refused.value)


def test_the_key_tells_browsers_apart_by_what_they_were_started_with() -> None:
    options = webdriver.ChromeOptions()
    options.add_argument("--lang=de")
    wants = [
        BrowserRequest(),
        BrowserRequest(user_agent="x"),
        BrowserRequest(options=options),
        BrowserRequest(download_dir=Path("/x")),
    ]
    assert len({wanted.key() for wanted in wants}) == 4
    assert BrowserRequest(page_load_timeout_seconds=5).key() == BrowserRequest().key()


def test_in_a_task_with_a_soft_limit_every_wait_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "running_task", lambda: RunningTask("t", "1", 20.0))
    page, command = context.fit_timeouts(BrowserRequest())
    assert page < command < 20
    assert context.fit_timeouts(BrowserRequest(page_load_timeout_seconds=1, command_timeout_seconds=2)) == (
        1,
        2,
    )


def test_without_a_soft_limit_the_timeouts_are_as_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for task in (None, RunningTask("t", "1", None)):
        monkeypatch.setattr(context, "running_task", lambda task=task: task)
        assert context.fit_timeouts(BrowserRequest()) == (30, 60)


@pytest.mark.parametrize(
    ("sent", "own", "of_app", "limit"),
    [
        ((None, 7), 8, 9, 7.0),
        (None, 8, 9, 8.0),
        ((None, None), None, 9, 9.0),
        (None, None, None, None),
    ],
)
def test_the_soft_limit_is_the_senders_else_the_tasks_else_the_apps(
    sent: tuple[None, int | None] | None, own: Any, of_app: Any, limit: float | None
) -> None:
    app = celery.Celery("app", task_soft_time_limit=of_app, set_as_current=False)
    seen = []

    @app.task(name="look", soft_time_limit=own, shared=False)
    def look() -> None:
        seen.append(running_task())

    task: Any = look
    task.push_request(id="1", timelimit=sent)
    celery._state._task_stack.push(task)  # type: ignore[attr-defined]
    try:
        task.run()
    finally:
        celery._state._task_stack.pop()  # type: ignore[attr-defined]
        task.pop_request()
    assert seen == [RunningTask("look", "1", limit)]


def test_outside_of_a_task_there_is_no_soft_limit() -> None:
    assert running_task() is None


class Files(http.server.BaseHTTPRequestHandler):
    """Offers a file, whichever host is asked for: a site, and a proxy."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path.endswith("/file"):
            self.send_header("Content-Disposition", "attachment; filename=report.bin")
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(f"<title>{self.path}</title>".encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def site() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.browser
def test_downloads_go_to_the_folder_that_was_given(site: str, tmp_path: Path) -> None:
    with browser(download_dir=tmp_path) as driver:
        driver.get(f"http://{site}/")
        driver.execute_script(f"location = 'http://{site}/file'")
        assert wait_until((tmp_path / "report.bin").exists, 10)


@pytest.mark.browser
def test_without_a_folder_downloads_go_with_the_profile(site: str, private_tmp: Path) -> None:
    with browser() as driver:
        driver.get(f"http://{site}/")
        driver.execute_script(f"location = 'http://{site}/file'")
        assert wait_until(lambda: any(private_tmp.glob("recyclery-profile-*/downloads/report.bin")), 10)
    assert list(private_tmp.iterdir()) == []


@pytest.mark.browser
def test_pages_are_asked_of_the_proxy_under_the_name_and_strategy_given(site: str) -> None:
    with browser(proxy=f"http://{site}", user_agent="mine", page_load_strategy="eager") as driver:
        driver.get("http://nowhere.invalid/page")
        assert driver.title == "http://nowhere.invalid/page"
        assert driver.execute_script("return navigator.userAgent") == "mine"
        assert driver.capabilities["pageLoadStrategy"] == "eager"
