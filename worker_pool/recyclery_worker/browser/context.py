"""`browser()`: a browser for one block, or for one block after another."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recyclery_worker.browser import kept
from recyclery_worker.browser.bounded import set_command_timeout
from recyclery_worker.browser.evidence import default_dir, keep_evidence, running_task
from recyclery_worker.browser.session import URL_VARIABLE, start_local, start_remote
from recyclery_worker.browser.wanted import BrowserRequest

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

SOFT_LIMIT_SHARE = 0.9  # Of a task's soft time limit; the rest is for leaving the block in order


@contextmanager
def browser(
    *,
    page_load_timeout_seconds: float = 30.0,
    command_timeout_seconds: float = 60.0,
    window_size: tuple[int, int] = (1280, 800),
    arguments: Sequence[str] = (),
    options: "Options | None" = None,
    page_load_strategy: str | None = None,
    download_dir: Path | None = None,
    proxy: str | None = None,
    user_agent: str | None = None,
    keep: int = 1,
    keep_bytes: int = 512 << 20,
    keep_seconds: float = 900.0,
) -> "Iterator[webdriver.Chrome]":
    """Yield a headless Chrome; at the end of the block its processes and files are gone.

    If the block raises an Exception, what the browser showed is kept (see `evidence`). With SELENIUM_REMOTE_URL
    in the environment the session is on the Selenium Grid there. If this process is killed, chromedriver and
    Chrome exit by themselves, and the governor removes the profile folder. The kernel ties chromedriver to the
    thread that entered the block: that thread must outlive the block. Leaving it takes mostly 0.2 s, at most
    about 8 s.

    Args:
        page_load_timeout_seconds: Timeout of a page load; shortened to fit a task's soft time limit.
        command_timeout_seconds: Timeout of any other command, even if Chrome is frozen (urllib3's
            ReadTimeoutError); shortened likewise.
        window_size: Width and height in pixels.
        arguments: Further Chrome flags.
        options: Selenium's options to start from; copied, never changed.
        page_load_strategy: normal, eager or none.
        download_dir: Where downloads are kept; by default they are deleted with the profile.
        proxy: Such as socks5://host:1080, without a password.
        user_agent: Replaces Chrome's own.
        keep: How many blocks of this thread with equal arguments one browser serves. In between its tabs,
            cookies, cache and stored data are cleared. A block that raises ends it.
        keep_bytes: A browser that holds more memory at the end of a block is not kept.
        keep_seconds: Nor is one that is older.

    Raises:
        BrowserMissing: There is no usable Chrome and driver, or no Selenium.
        BrowserNotStarted: The session did not start.
        ValueError: An argument is invalid.
    """
    wanted = BrowserRequest(
        page_load_timeout_seconds=page_load_timeout_seconds,
        command_timeout_seconds=command_timeout_seconds,
        window_size=window_size,
        arguments=arguments,
        options=options,
        page_load_strategy=page_load_strategy,
        download_dir=download_dir,
        proxy=proxy,
        user_agent=user_agent,
    )
    page_seconds, command_seconds = fit_timeouts(wanted)
    key = wanted.key() if keep > 1 else ""
    session = (kept.take_kept(key) if keep > 1 else None) or start(wanted)
    is_kept = False
    try:
        set_command_timeout(session.driver, command_seconds)
        session.driver.set_page_load_timeout(page_seconds)
        try:
            yield session.driver
        except Exception as error:
            if (folder := default_dir()) is not None:
                keep_evidence(session.driver, error, folder)
            raise
        is_kept = keep > 1 and kept.keep(key, session, keep, keep_bytes, keep_seconds)
    finally:
        if not is_kept:
            kept.end_browser(session)


def start(wanted: BrowserRequest) -> kept.Session:
    """Start a browser, on the Grid if the environment names one."""
    url = os.environ.get(URL_VARIABLE, "").strip()
    return start_remote(url, wanted) if url else start_local(wanted)


def fit_timeouts(wanted: BrowserRequest) -> tuple[float, float]:
    """Return the timeouts of page loads and of commands, both below the task's soft time limit."""
    page, command = wanted.page_load_timeout_seconds, wanted.command_timeout_seconds
    task = running_task()
    if task is None or task.soft_limit_seconds is None:
        return page, command
    most = task.soft_limit_seconds * SOFT_LIMIT_SHARE
    # The shorter one for the page: chromedriver's error says more than a connection that timed out.
    return min(page, most * SOFT_LIMIT_SHARE), min(command, most)
