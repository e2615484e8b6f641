"""One Chrome, on this machine or on a Selenium Grid.

On this machine it runs under chromedriver, in a profile folder of its own. However it ends, all of its
processes are ended, chromedriver is reaped and the folder is removed. Figures in the comments were measured on
Chromium 156 with Selenium 4.51.
"""

import contextlib
import logging
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from recyclery_worker.browser.bounded import BrowserNotStarted, bound_chrome, bound_remote
from recyclery_worker.browser.driver import BrowserPair, find_browser, tie_to_owner
from recyclery_worker.browser.profiles import (
    VARIABLE,
    Profile,
    end_processes,
    list_profile_processes,
    make_profile,
)
from recyclery_worker.browser.wanted import BrowserRequest
from recyclery_worker.pool.child import read_memory, reporter

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

logger = logging.getLogger(__name__)

PROFILE_PATH_BYTES = 57  # A socket's path has 107; below it comes tmp/org.chromium.Chromium.XXXXXX/Singleton…
URL_VARIABLE = "SELENIUM_REMOTE_URL"
GRID_QUIT_SECONDS = 10.0  # A Grid's node has work of its own at the end of a session


@dataclass
class LocalSession:
    """A running browser; `uses` counts the blocks that had it."""

    driver: "webdriver.Chrome"
    profile: Profile
    started: float = field(default_factory=time.monotonic)
    uses: int = 0

    @property
    def pid(self) -> int:
        return int(self.driver.service.process.pid)

    def held_bytes(self) -> int:
        """Return RssAnon + RssShmem of all its processes (proc(5)), near what the cgroup is charged."""
        return sum(map(read_anon_bytes, list_profile_processes(self.profile.path)))

    def end(self) -> None:
        """End all its processes and remove its files, in mostly 0.2 s, at most 8 s."""
        children: set[int] = set()
        try:
            # Listed before they exit: if this process is PID 1, Chrome's orphans become its children.
            children = list_profile_processes(self.profile.path) | {self.pid}
            self.driver.quit()
        finally:
            end_profile(self.profile, children)


def start_local(wanted: BrowserRequest) -> LocalSession:
    """Start a browser here; raises BrowserMissing (no usable pair, or no Selenium), BrowserNotStarted."""
    chrome_class, pair = bound_chrome(wanted.command_timeout_seconds), find_browser()
    profile = make_profile()
    try:
        options = wanted.make_options(profile.path)
        return LocalSession(start_driver(pair, profile.path, options, chrome_class), profile)
    except BaseException:
        end_profile(profile, set())
        raise


def end_profile(profile: Profile, children: set[int]) -> None:
    try:
        end_processes(profile.path, children)
    finally:
        profile.remove()


def start_driver(
    pair: BrowserPair, profile: Path, options: "Options", chrome_class: "type[webdriver.Chrome]"
) -> "webdriver.Chrome":
    """Start chromedriver, tied to this thread, and Chrome under it; raises BrowserNotStarted."""
    import urllib3  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    # Chrome's temporary folders and crash dumps are deleted with the profile, even after a kill.
    crashes = str(profile / "crashes")
    environment = {**os.environ, VARIABLE: str(profile), "BREAKPAD_DUMP_LOCATION": crashes}
    if len(os.fsencode(profile)) <= PROFILE_PATH_BYTES:
        (profile / "tmp").mkdir()
        environment["TMPDIR"] = str(profile / "tmp")
    options.binary_location = options.binary_location or str(pair.chrome)
    try:
        service = Service(
            str(pair.chromedriver),
            env=environment,
            log_output=subprocess.DEVNULL,
            driver_path_env_key="CHROMEDRIVER",  # Selenium's SE_CHROMEDRIVER would override the pair.
            popen_kw={"preexec_fn": tie_to_owner(os.getpid())},
        )
        driver = chrome_class(options, service)
    except (BrowserNotStarted, WebDriverException, urllib3.exceptions.HTTPError, OSError) as error:
        raise BrowserNotStarted(f"{pair.chrome} under {pair.chromedriver} did not start: {error}") from error
    if driver.service.process.poll() is not None:
        # Another chromedriver has its port, and has started the session.
        raise BrowserNotStarted(f"{pair.chromedriver} left at once: port {driver.service.port} was taken")
    return driver


def read_anon_bytes(pid: int) -> int:
    """Return the anonymous and shared memory of a process; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return sum(read_memory(pid))
    return 0


@dataclass
class RemoteSession:
    """A session on the Grid; `uses` counts the blocks that had it."""

    driver: "webdriver.Chrome"
    session_id: str
    started: float = field(default_factory=time.monotonic)
    uses: int = 0
    pid: int | None = None

    def held_bytes(self) -> int:
        """Return 0, as its memory is on another machine."""
        return 0

    def end(self) -> None:
        """Close the session; where that cannot be verified, the governor closes it after our death."""
        self.driver.quit()
        if self.is_closed():
            if (reports := reporter()) is not None:
                reports.session_closed(self.session_id)
        else:
            logger.warning("session %s may still be open on the Grid", self.session_id)

    def is_closed(self) -> bool:
        from selenium.webdriver.remote.command import Command  # noqa: PLC0415

        try:
            executor: Any = self.driver.command_executor
            answer = executor.execute(Command.GET_TITLE, {"sessionId": self.session_id})
        except Exception:  # the Grid is away, or does not answer properly
            return False
        return "invalid session id" in str(answer.get("value"))


def start_remote(url: str, wanted: BrowserRequest) -> RemoteSession:
    """Open a session on the Grid at this URL; raises BrowserMissing, BrowserNotStarted."""
    remote_class = bound_remote(wanted.command_timeout_seconds, GRID_QUIT_SECONDS)
    import urllib3  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415
    from selenium.webdriver.remote.client_config import ClientConfig  # noqa: PLC0415

    parts = urlsplit(url)
    # Not in the address, which errors show.
    host = parts.netloc.rpartition("@")[2]
    address = parts._replace(netloc=host).geturl()
    config = ClientConfig(
        address,
        username=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        timeout=int(wanted.command_timeout_seconds),
    )
    try:
        driver = remote_class(command_executor=address, options=wanted.make_options(None), client_config=config)
    except (WebDriverException, urllib3.exceptions.HTTPError, OSError) as error:
        raise BrowserNotStarted(
            f"no session on the Grid at {address} ({URL_VARIABLE}): {error}. Is it up, and has it a free slot?"
        ) from error
    session_id = str(driver.session_id)
    if (reports := reporter()) is not None:
        # At once: if this process is killed, the governor must know what to close.
        reports.session_opened(session_id)
    return RemoteSession(driver, session_id)
