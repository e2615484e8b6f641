"""`browser()`: a browser for one block, or for one block after another.

To save its start, a browser may be kept for the next block of the same thread. It is never shared: a forked
child begins with none, and each thread has its own, as the kernel ties chromedriver to the thread that started
it. What the browser of a failed block showed is kept as evidence, for a person to look at.
"""

import atexit
import contextlib
import logging
import os
import re
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from recyclery_worker.browser.session import BrowserRequest, Session, attempt, set_command_timeout, start
from recyclery_worker.pool.child import before_end, reporter

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

SOFT_LIMIT_SHARE = 0.9  # Of a task's soft time limit; the rest is for leaving the block in order
DIR_VARIABLE = "RECYCLERY_EVIDENCE_DIR"
COLLECT_SECONDS = 3.0  # The hard time limit may follow the soft one closely
KEPT_CASES = 20
PAGE_CHARACTERS = 2_000_000
CONSOLE_LINES = 1000
RESET_SECONDS = 5.0

logger = logging.getLogger(__name__)


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

    If the block raises an Exception, what the browser showed is kept (see `keep_evidence`). With
    SELENIUM_REMOTE_URL in the environment the session is on the Selenium Grid there. If this process is killed,
    chromedriver and Chrome exit by themselves, and the governor removes the profile folder. The kernel ties
    chromedriver to the thread that entered the block: that thread must outlive the block. Leaving it takes
    mostly 0.2 s, at most about 8 s.

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
    session = (take_kept(key) if keep > 1 else None) or start(wanted)
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
        is_kept = keep > 1 and keep_session(key, session, keep, keep_bytes, keep_seconds)
    finally:
        if not is_kept:
            end_browser(session)


def fit_timeouts(wanted: BrowserRequest) -> tuple[float, float]:
    """Return the timeouts of page loads and of commands, both below the task's soft time limit."""
    page, command, task = wanted.page_load_timeout_seconds, wanted.command_timeout_seconds, running_task()
    if task is None or task.soft_limit_seconds is None:
        return page, command
    most = task.soft_limit_seconds * SOFT_LIMIT_SHARE
    # The shorter one for the page: chromedriver's error says more than a connection that timed out.
    return min(page, most * SOFT_LIMIT_SHARE), min(command, most)


class _Slot(threading.local):
    """The browser that a thread keeps; `owner` is the process, as a forked child inherits the slot."""

    session: Session | None = None
    key = ""
    owner = 0


_slot = _Slot()


def take_kept(key: str) -> Session | None:
    """Return the browser kept for callers with this key, if it still answers; any other is ended."""
    session = _slot.session
    if session is not None and _slot.owner == os.getpid() and _slot.key == key and answers(session):
        _slot.session = None
        return session
    end_kept()
    return None


def keep_session(key: str, session: Session, max_uses: int, max_bytes: int, max_seconds: float) -> bool:
    """Clean a browser after a block that did not raise, and keep it; return whether it is kept."""
    session.uses += 1
    is_old = session.uses >= max_uses or time.monotonic() - session.started >= max_seconds
    if is_old or _slot.session is not None or not reset(session) or session.held_bytes() > max_bytes:
        return False
    _slot.session, _slot.key, _slot.owner = session, key, os.getpid()
    if session.pid is not None and (reports := reporter()) is not None:
        reports.browser_kept(session.pid)
    return True


def end_kept() -> None:
    """End the browser that this thread keeps, before its process exits."""
    session, _slot.session = _slot.session, None
    if session is not None and _slot.owner == os.getpid():
        end_browser(session)


atexit.register(end_kept)
# A pool child exits another way.
before_end.append(end_kept)


def end_browser(session: Session) -> None:
    pid = session.pid
    try:
        session.end()
    finally:
        if pid is not None and (reports := reporter()) is not None:
            reports.browser_ended(pid)


def answers(session: Session) -> bool:
    """Return whether a kept browser still answers: it may have been killed or frozen."""
    set_command_timeout(session.driver, RESET_SECONDS)
    with contextlib.suppress(Exception):
        return bool(session.driver.window_handles)
    return False


def reset(session: Session) -> bool:
    """Clear tabs, cookies, cache, stored data and permissions; return whether that succeeded."""
    # A new tab has a new renderer: 50 pages in one tab took 1158 MiB, in a new tab each 9 MiB.
    driver: Any = session.driver
    set_command_timeout(driver, RESET_SECONDS)
    try:
        old = driver.window_handles
        driver.switch_to.new_window("tab")
        fresh = driver.current_window_handle
        for handle in old:
            driver.switch_to.window(handle)
            driver.close()
        driver.switch_to.window(fresh)
        driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
        driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": "*", "storageTypes": "all"})
        driver.execute_cdp_cmd("Browser.resetPermissions", {})
        driver.get_log("browser")
        return bool(driver.window_handles == [fresh])
    except Exception as error:  # whatever it is, the browser cannot be trusted
        logger.info("a browser is not kept, as it could not be cleaned: %s", error)
        return False


class RunningTask(NamedTuple):
    """The Celery task that runs in this thread; its soft time limit is None where it has none."""

    name: str
    id: str
    soft_limit_seconds: float | None


def running_task() -> RunningTask | None:
    """Return the task that runs here; None outside of tasks, and where Celery is not imported."""
    celery: Any = sys.modules.get("celery")
    task = celery.current_task if celery is not None else None
    if not task or not task.request.id:
        return None
    # (hard, soft) of the message; else the task's own, else the app's (celery/app/task.py).
    _, sent = task.request.timelimit or (None, None)
    soft = sent or task.soft_time_limit or task.app.conf.task_soft_time_limit
    return RunningTask(str(task.name), str(task.request.id), float(soft) if soft else None)


def default_dir() -> Path | None:
    """Return the folder in RECYCLERY_EVIDENCE_DIR, None if that is empty; else a private temporary one."""
    if (named := os.environ.get(DIR_VARIABLE)) is not None:
        return Path(named) if named.strip() else None
    return Path(tempfile.gettempdir()) / f"recyclery-evidence-{os.geteuid()}"


def keep_evidence(driver: Any, error: BaseException, folder: Path) -> Path | None:
    """Write screenshot, page, console log and error into a new folder; return it, None where that fails.

    Takes COLLECT_SECONDS at most; the newest KEPT_CASES folders are kept. A note on the error names the folder.
    """
    try:
        case = make_case(folder)
        (case / "error.txt").write_text("".join(traceback.format_exception(error)))
    except OSError as problem:
        logger.warning("what the browser showed cannot be kept in %s: %s", folder, problem)
        return None
    attempt(partial(write_evidence, driver, case), COLLECT_SECONDS)
    error.add_note(f"What the browser showed: {case}")
    # Other processes may remove cases too; the names begin with the time.
    with contextlib.suppress(OSError):
        for old in sorted(entry for entry in folder.iterdir() if entry.is_dir())[:-KEPT_CASES]:
            shutil.rmtree(old, ignore_errors=True)
    return case


def make_case(folder: Path) -> Path:
    """Create the private folder of one case, named after time and task; raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if found.st_uid != os.geteuid() or folder.is_symlink():
        # Someone else created it before us, in a folder that all may write to.
        raise PermissionError("it is not ours")
    name = time.strftime("%Y%m%d-%H%M%S")
    if (task := running_task()) is not None:
        name += "-" + re.sub(r"[^\w.]+", "_", task.name)[-60:] + "-" + re.sub(r"\W", "", task.id)[:8]
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def write_evidence(driver: Any, case: Path) -> None:
    """Write what can still be read from the browser: address and title, page, console and a screenshot."""
    readers: dict[str, Callable[[], bytes]] = {
        "url.txt": lambda: f"{driver.current_url}\n{driver.title}\n".encode(errors="replace"),
        "console.txt": lambda: read_console(driver),
        "page.html": lambda: driver.page_source[:PAGE_CHARACTERS].encode(errors="replace"),
        "screenshot.png": lambda: bytes(driver.get_screenshot_as_png()),
    }
    for name, read in readers.items():
        with contextlib.suppress(Exception):
            (case / name).write_bytes(read())


def read_console(driver: Any) -> bytes:
    entries = driver.get_log("browser")[-CONSOLE_LINES:]
    lines = (f"{entry['level']} {entry['message']}".replace("\n", "\\n") + "\n" for entry in entries)
    return "".join(lines).encode(errors="replace")
