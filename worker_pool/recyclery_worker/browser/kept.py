"""A browser kept for the next block of the same thread, to save its start.

It is never shared: a forked child begins with none, and each thread has its own, as the kernel ties
chromedriver to the thread that started it.
"""

import atexit
import contextlib
import logging
import os
import threading
import time
from typing import Any

from recyclery_worker.browser.session import LocalSession, RemoteSession, set_command_timeout
from recyclery_worker.pool.child import before_end, reporter

RESET_SECONDS = 5.0

Session = LocalSession | RemoteSession

logger = logging.getLogger(__name__)


class _Slot(threading.local):
    """The browser that a thread keeps; `owner` is the process, as a forked child inherits the slot."""

    session: Session | None = None
    key = ""
    owner = 0


_slot = _Slot()


def take_kept(key: str) -> Session | None:
    """Return the browser kept for callers with this key, if it still answers; any other is ended."""
    session, _slot.session = _slot.session, None
    if session is None or _slot.owner != os.getpid():
        return None
    if _slot.key == key and answers(session):
        return session
    end_browser(session)
    return None


def keep(key: str, session: Session, max_uses: int, max_bytes: int, max_seconds: float) -> bool:
    """Clean a browser after a block that did not raise, and keep it; return whether it is kept.

    It serves `max_uses` blocks, and may have this size and age at the end of one.
    """
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
    """End a browser, kept or not."""
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
