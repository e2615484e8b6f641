"""`browser()`: a browser for one block, or for one block after another."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from recyclery_worker.browser import kept
from recyclery_worker.browser.bounded import set_command_timeout
from recyclery_worker.browser.evidence import default_dir, keep_evidence, running_task
from recyclery_worker.browser.kept import KeepLimits
from recyclery_worker.browser.session import read_url, start_local, start_remote
from recyclery_worker.browser.wanted import Wanted

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

# Of a task's soft time limit: what is left is for leaving the block in order.
SOFT_LIMIT_SHARE = 0.9


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
    """Yield a headless Chrome; at the end of the block none of its processes and files are left.

    A page load ends after `page_load_timeout_seconds`, any other command after `command_timeout_seconds`, even
    if Chrome is frozen (urllib3's ReadTimeoutError); in a task with a soft time limit both end before that.
    Leaving the block takes at most about 8 s, mostly 0.2 s.

    `window_size` is width and height in pixels; `arguments` are further Chrome flags; `options` is copied,
    never changed; `page_load_strategy` is normal, eager or none; downloads go to `download_dir`, else they are
    thrown away; `proxy` is as in socks5://host:1080, without a password.

    With `keep` above 1 the browser serves so many blocks of this thread that want the same, or until at the end
    of one it holds more than `keep_bytes` or is older than `keep_seconds`; between two its tabs, cookies, cache
    and stored data are taken away. A block that raises ends it.

    If the block raises an Exception, what the browser showed is kept (see `evidence`). If the owner itself is
    killed, chromedriver and Chrome leave on their own, and the governor removes the folder. The kernel ties
    chromedriver to the thread that entered the block: that thread must outlive the block.

    With SELENIUM_REMOTE_URL in the environment the session is on the Selenium Grid there.

    Raises BrowserMissing (no usable pair, or no Selenium), BrowserNotStarted, ValueError.
    """
    wanted = Wanted(
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
    session = (kept.take(key) if keep > 1 else None) or start(wanted)
    is_kept = False
    try:
        set_command_timeout(session.driver, command_seconds)
        session.driver.set_page_load_timeout(page_seconds)
        try:
            yield session.driver
        except Exception as error:
            folder = default_dir()
            if folder is not None:
                keep_evidence(session.driver, error, folder)
            raise
        is_kept = keep > 1 and kept.give_back(key, session, KeepLimits(keep, keep_bytes, keep_seconds))
    finally:
        if not is_kept:
            kept.end(session)


def start(wanted: Wanted) -> kept.Session:
    """Start a browser, on the Grid if the environment names one."""
    url = read_url()
    return start_remote(url, wanted) if url is not None else start_local(wanted)


def fit_timeouts(wanted: Wanted) -> tuple[float, float]:
    """Return the page load's and the commands' timeouts, the longest a little below the task's soft limit."""
    page, command = wanted.page_load_timeout_seconds, wanted.command_timeout_seconds
    task = running_task()
    if task is None or task.soft_limit_seconds is None:
        return page, command
    most = task.soft_limit_seconds * SOFT_LIMIT_SHARE
    # Chromedriver's own word on a page is worth more than a connection that timed out: it comes first.
    return min(page, most * SOFT_LIMIT_SHARE), min(command, most)
