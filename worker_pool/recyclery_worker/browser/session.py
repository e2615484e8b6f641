"""One Chrome, on this machine or on a Selenium Grid.

Every wait for it has a timeout. On this machine it runs under chromedriver, in a profile folder of its own.
However it ends, all of its processes are ended, chromedriver is reaped and the folder is removed. Figures in
the comments were measured on Chromium 156 with Selenium 4.51.
"""

import contextlib
import copy
import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import psutil

from recyclery_worker.browser.driver import (
    BrowserPair,
    find_browser,
    import_selenium,
    is_sandbox_usable,
    tie_to_owner,
)
from recyclery_worker.browser.profiles import VARIABLE, Profile, list_profile_processes, make_profile
from recyclery_worker.pool.child import read_memory, reporter

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

logger = logging.getLogger(__name__)

PROFILE_PATH_BYTES = 57  # A socket's path has 107; below it comes tmp/org.chromium.Chromium.XXXXXX/Singleton…
URL_VARIABLE = "SELENIUM_REMOTE_URL"
QUIT_SECONDS = 2.0  # A clean quit takes 0.1 to 0.4 s; killing loses nothing, as the profile is deleted.
GRID_QUIT_SECONDS = 10.0  # A Grid's node has work of its own at the end of a session
WATCH_PAUSE_SECONDS = 0.1
STRATEGIES = ("normal", "eager", "none")

# docs/browsers.md explains each, with the command that measures its effect.
FLAGS = (
    "--headless=new",
    "--disable-component-update",  # Its downloads have filled disks.
)
LOCAL_FLAGS = (
    "--remote-debugging-pipe",  # Chrome leaves 0.2 s after chromedriver dies, instead of never.
    "--disable-dev-shm-usage",  # A container's /dev/shm has 64 MB; full, it crashes tabs.
)


@dataclass(frozen=True)
class BrowserRequest:
    """A browser as asked for; raises ValueError for invalid arguments."""

    page_load_timeout_seconds: float = 30.0
    command_timeout_seconds: float = 60.0
    window_size: tuple[int, int] = (1280, 800)
    arguments: Sequence[str] = ()
    options: "Options | None" = None
    page_load_strategy: str | None = None
    download_dir: Path | None = None
    proxy: str | None = None
    user_agent: str | None = None

    def __post_init__(self) -> None:
        page, command = self.page_load_timeout_seconds, self.command_timeout_seconds
        if command <= page:
            problem = "command_timeout_seconds must be above page_load_timeout_seconds"
            raise ValueError(f"{problem}: {command} and {page}")
        strategy = self.page_load_strategy
        if strategy not in {None, *STRATEGIES}:
            raise ValueError(f"page_load_strategy is {strategy!r}: it must be one of {', '.join(STRATEGIES)}")
        if self.proxy is not None and "@" in self.proxy:
            # Chrome takes no password from a flag, and every error would show it.
            raise ValueError("proxy has a user name in it, which Chrome does not take: give host and port")

    def make_options(self, profile: Path | None) -> "Options":
        """Return Chrome's options, for a browser on a Grid (`profile` is None) or on this machine."""
        chosen = copy.deepcopy(self.options or import_selenium().ChromeOptions())
        for flag in [*self.list_flags(profile), *self.arguments]:
            chosen.add_argument(flag)
        if sum(argument.startswith("--user-data-dir") for argument in chosen.arguments) > (profile is not None):
            raise ValueError("--user-data-dir: browser() gives each session a profile folder of its own")
        if self.page_load_strategy is not None:
            chosen.page_load_strategy = self.page_load_strategy
        # Debian's Chromium opens a search engine's page first, and chromedriver's first command waits for it:
        # where its name cannot be resolved, one start of four takes 5 s longer.
        preferences: dict[str, Any] = {"session.restore_on_startup": 4, "session.startup_urls": ["about:blank"]}
        folder = self.download_dir or (profile / "downloads" if profile is not None else None)
        if folder is not None:
            preferences["download.default_directory"] = str(Path(folder).absolute())
            preferences["download.prompt_for_download"] = False
        preferences |= chosen.experimental_options.get("prefs", {})
        chosen.add_experimental_option("prefs", preferences)
        if "goog:loggingPrefs" not in chosen.capabilities:
            # For the console log in the evidence of a failure.
            chosen.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        return chosen

    def list_flags(self, profile: Path | None) -> list[str]:
        flags = [*FLAGS, f"--window-size={self.window_size[0]},{self.window_size[1]}"]
        if self.proxy is not None:
            flags.append(f"--proxy-server={self.proxy}")
        if self.user_agent is not None:
            flags.append(f"--user-agent={self.user_agent}")
        if profile is not None:
            flags += [*LOCAL_FLAGS, f"--user-data-dir={profile}"]
            if not is_sandbox_usable():
                flags.append("--no-sandbox")
        return flags

    def key(self) -> str:
        """Return a key that is equal for callers that can share a kept browser."""
        capabilities = self.make_options(None).to_capabilities()
        return json.dumps([capabilities, str(self.download_dir)], sort_keys=True, default=str)


# By name, as this works without Celery.
CUT_OFF = frozenset({"SoftTimeLimitExceeded", "TaskMemoryLimitExceeded"})


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


def bound_remote(timeout_seconds: float) -> "Callable[..., webdriver.Chrome]":
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
            attempt(lambda: webdriver.Remote.quit(self), GRID_QUIT_SECONDS)

    return BoundedRemote


def bound_commands(driver: Any, timeout_seconds: float) -> None:
    """Set the timeout of every command of a driver, the start of its session included, and allow no retry."""
    # By default urllib3 repeats a GET or DELETE that timed out three times.
    import urllib3  # noqa: PLC0415

    set_command_timeout(driver, timeout_seconds)
    if (pool_manager := getattr(driver.command_executor, "_conn", None)) is not None:
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
            self.profile.end(children)


def start_local(wanted: BrowserRequest) -> LocalSession:
    """Start a browser here; raises BrowserMissing (no usable pair, or no Selenium), BrowserNotStarted."""
    chrome_class, pair = bound_chrome(wanted.command_timeout_seconds), find_browser()
    profile = make_profile()
    try:
        options = wanted.make_options(profile.path)
        return LocalSession(start_driver(pair, profile.path, options, chrome_class), profile)
    except BaseException:
        profile.end(set())
        raise


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
        if (cut_off := find_cut_off(error)) is not None:
            raise cut_off from None
        raise BrowserNotStarted(f"{pair.chrome} under {pair.chromedriver} did not start: {error}") from error
    if driver.service.process.poll() is not None:
        # Another chromedriver has its port, and has started the session.
        raise BrowserNotStarted(f"{pair.chromedriver} left at once: port {driver.service.port} was taken")
    return driver


def find_cut_off(error: BaseException | None) -> BaseException | None:
    """Return the limit that ends the task where an error only came of it, as Selenium cleaned up after that.

    None where there is none.
    """
    while error is not None and type(error).__name__ not in CUT_OFF:
        error = error.__context__
    return error


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
        return 0  # Its memory is on another machine.

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
    remote_class = bound_remote(wanted.command_timeout_seconds)
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
        if (cut_off := find_cut_off(error)) is not None:
            raise cut_off from None
        raise BrowserNotStarted(
            f"no session on the Grid at {address} ({URL_VARIABLE}): {error}. Is it up, and has it a free slot?"
        ) from error
    session_id = str(driver.session_id)
    if (reports := reporter()) is not None:
        # At once: if this process is killed, the governor must know what to close.
        reports.session_opened(session_id)
    return RemoteSession(driver, session_id)


Session = LocalSession | RemoteSession


def start(wanted: BrowserRequest) -> Session:
    """Start a browser, on the Grid if the environment names one."""
    url = os.environ.get(URL_VARIABLE, "").strip()
    return start_remote(url, wanted) if url else start_local(wanted)
