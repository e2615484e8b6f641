"""Selenium's drivers with a timeout for every wait."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from recyclery_worker.browser.driver import import_selenium

if TYPE_CHECKING:
    from selenium import webdriver

QUIT_SECONDS = 2.0  # A clean quit takes 0.1 to 0.4 s; killing loses nothing, as the profile is deleted.
WATCH_PAUSE_SECONDS = 0.1


class BrowserNotStarted(RuntimeError):
    """chromedriver, Chrome or the Grid did not start a session; what was started has been stopped."""


def bound_chrome(timeout_seconds: float) -> "type[webdriver.Chrome]":
    """Return Selenium's Chrome with timeouts for commands, start and quit; raises BrowserMissing."""
    chrome = import_selenium().Chrome

    class BoundedChrome(chrome):  # type: ignore[misc, valid-type]
        def start_client(self) -> None:
            bound_commands(self, timeout_seconds)

        def start_session(self, capabilities: dict[str, Any]) -> None:
            with watch_start(self.service.process):
                super().start_session(capabilities)

        def quit(self) -> None:
            attempt(super().quit, QUIT_SECONDS)

    return BoundedChrome


def bound_remote(timeout_seconds: float, quit_seconds: float) -> "Callable[..., webdriver.Chrome]":
    """Return the same for a Chrome behind a URL; it takes the arguments of Remote."""
    # It has Chrome's own commands, so that code which uses them runs both here and on a Grid.
    webdriver = import_selenium()

    class BoundedRemote(webdriver.Chrome):  # type: ignore[misc, name-defined]
        def __init__(self, **arguments: Any) -> None:
            # Not Chrome's `__init__`, which starts a chromedriver.
            webdriver.Remote.__init__(self, **arguments)

        def start_client(self) -> None:
            bound_commands(self, timeout_seconds)

        def quit(self) -> None:
            attempt(lambda: webdriver.Remote.quit(self), quit_seconds)

    return BoundedRemote


def bound_commands(driver: Any, timeout_seconds: float) -> None:
    """Set the timeout of every command of a driver, the start of its session included, and allow no retry."""
    # By default urllib3 repeats a GET or DELETE that timed out three times.
    import urllib3  # noqa: PLC0415

    set_command_timeout(driver, timeout_seconds)
    pool_manager = getattr(driver.command_executor, "_conn", None)
    if pool_manager is not None:
        pool_manager.connection_pool_kw["retries"] = urllib3.Retry(connect=3, read=False)


def set_command_timeout(driver: Any, timeout_seconds: float) -> None:
    driver.command_executor.client_config.timeout = timeout_seconds


def attempt(ask: Any, seconds: float) -> None:
    """Call something that may hang or fail, and wait `seconds` at most; the caller then checks the result."""

    def call() -> None:
        with contextlib.suppress(Exception):
            ask()

    thread = threading.Thread(target=call, name="browser-attempt", daemon=True)
    with contextlib.suppress(RuntimeError):  # The cgroup's PID limit allows no further thread.
        thread.start()
        thread.join(seconds)


@contextmanager
def watch_start(chromedriver: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill chromedriver if Chrome dies at its start, which it would notice on its pipe only after 60 s."""
    import urllib3  # noqa: PLC0415

    started, died = threading.Event(), threading.Event()

    def watch() -> None:
        born = False
        with contextlib.suppress(psutil.Error):
            while not started.wait(WATCH_PAUSE_SECONDS):
                states = {child.status() for child in psutil.Process(chromedriver.pid).children()}
                born = born or bool(states)
                if born and not states - {psutil.STATUS_ZOMBIE}:
                    died.set()
                    chromedriver.kill()
                    return

    threading.Thread(target=watch, name="browser-start", daemon=True).start()
    try:
        yield
    except urllib3.exceptions.HTTPError as error:
        if died.is_set():
            raise BrowserNotStarted("Chrome died at once") from error
        raise
    finally:
        started.set()
