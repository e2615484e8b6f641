"""A browser kept for the next block of the same thread, so that its start-up is paid seldom.

Never shared: a forked child starts with none, and each thread has its own (the kernel ties chromedriver to the
thread that started it).
"""

import atexit
import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Any, Protocol

from recyclery_worker.browser.bounded import set_command_timeout
from recyclery_worker.pool.child import at_end, reporter

RESET_SECONDS = 5.0

logger = logging.getLogger(__name__)


class Session(Protocol):
    """A browser that a block can have, here or on a Grid."""

    driver: Any
    started: float
    uses: int

    @property
    def pid(self) -> int | None:
        """Chromedriver's; None where it is not on this machine."""

    def held_bytes(self) -> int:
        """Return what it holds of this machine's memory."""

    def end(self) -> None:
        """End it, whatever state it is in."""


@dataclass(frozen=True)
class KeepLimits:
    """A browser serves so many blocks, or until it holds so much or is so old at the end of one."""

    uses: int
    bytes: int
    seconds: float


@dataclass
class _Slot:
    """What a thread keeps; of another process when that has forked."""

    owner: int
    key: str
    session: Session


_slots = threading.local()


def take(key: str) -> Session | None:
    """Return the browser kept for such a caller, if it still answers; one kept for another caller is ended."""
    slot: _Slot | None = getattr(_slots, "slot", None)
    _slots.slot = None
    if slot is None or slot.owner != os.getpid():
        return None
    if slot.key == key and answers(slot.session):
        return slot.session
    end(slot.session)
    return None


def give_back(key: str, session: Session, limits: KeepLimits) -> bool:
    """Keep a browser after a block that went well, made clean; tell whether it is kept."""
    session.uses += 1
    if session.uses >= limits.uses or getattr(_slots, "slot", None) is not None:
        return False
    if time.monotonic() - session.started >= limits.seconds or not reset(session):
        return False
    if session.held_bytes() > limits.bytes:
        return False
    _slots.slot = _Slot(os.getpid(), key, session)
    told = reporter()
    if told is not None and session.pid is not None:
        told.browser_kept(session.pid)
    return True


def end_kept() -> None:
    """End what this thread keeps, as its process leaves."""
    slot: _Slot | None = getattr(_slots, "slot", None)
    _slots.slot = None
    if slot is not None and slot.owner == os.getpid():
        end(slot.session)


atexit.register(end_kept)
# A pool child leaves by another way.
at_end.append(end_kept)


def end(session: Session) -> None:
    """End a browser, kept or not."""
    pid = session.pid
    try:
        session.end()
    finally:
        told = reporter()
        if told is not None and pid is not None:
            told.browser_ended(pid)


def answers(session: Session) -> bool:
    """Tell whether a kept browser is still there: it may have been killed, or frozen, meanwhile."""
    set_command_timeout(session.driver, RESET_SECONDS)
    with contextlib.suppress(Exception):
        return bool(session.driver.window_handles)
    return False


def reset(session: Session) -> bool:
    """Take away what the block left: its tabs, cookies, cache, stored data and permissions.

    A new tab has a renderer of its own; 50 pages in one tab took 1158 MiB, in a new tab each 9 MiB.
    """
    driver = session.driver
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
    except Exception as error:  # whatever it is, the browser is not to be trusted
        logger.info("a browser is not kept, it could not be made clean: %s", error)
        return False
