"""One browser for one task, which leaves nothing behind.

`browser()` starts Chrome under chromedriver in a profile folder of its own and, whatever ends the block,
ends every process of it, reaps chromedriver and removes the folder. Figures in the comments were measured
on Chromium 156 with Selenium 4.51.
"""

import contextlib
import copy
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from recyclery_worker.browser import driver as pairing
from recyclery_worker.browser.driver import BrowserMissing, BrowserPair, find_browser

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options


PROFILE_VARIABLE = "RECYCLERY_PROFILE"
QUIT_SECONDS = 2.0  # A clean quit takes 0.1 to 0.4 s; the profile is thrown away, so killing loses nothing.
KILL_SECONDS = 5.0
WATCH_PAUSE_SECONDS = 0.1
PROFILE_PATH_BYTES = 57  # A socket's path has 107; below it comes tmp/org.chromium.Chromium.XXXXXX/Singleton…

logger = logging.getLogger(__name__)


class BrowserNotStarted(RuntimeError):
    """chromedriver or Chrome did not start; what they had started is gone again."""


@contextmanager
def browser(
    *,
    page_load_timeout_seconds: float = 30.0,
    command_timeout_seconds: float = 60.0,
    window_size: tuple[int, int] = (1280, 800),
    arguments: Sequence[str] = (),
    options: "Options | None" = None,
) -> "Iterator[webdriver.Chrome]":
    """Yield a headless Chrome; at the end of the block none of its processes and files are left.

    `window_size` is width and height in pixels; `arguments` are further Chrome flags; `options` is copied,
    never changed. A page load ends after `page_load_timeout_seconds` (keep it below the task's soft time
    limit), any other command after `command_timeout_seconds`, even if Chrome is frozen (urllib3's
    ReadTimeoutError). Leaving the block takes at most about 8 s, mostly 0.2 s.

    If the owner itself is killed, chromedriver and Chrome leave on their own; only the folder stays. The
    kernel ties chromedriver to the thread that entered the block: that thread must outlive the block.

    Raises BrowserMissing (no usable pair, or no Selenium), BrowserNotStarted, ValueError.
    """
    if command_timeout_seconds <= page_load_timeout_seconds:
        limits = f"{command_timeout_seconds} and {page_load_timeout_seconds}"
        raise ValueError(f"command_timeout_seconds must be above page_load_timeout_seconds: {limits}")
    chrome_class, pair = _load_chrome(command_timeout_seconds), find_browser()
    profile = Path(tempfile.mkdtemp(prefix="recyclery-profile-"))
    children: set[int] = set()
    try:
        chosen = _choose_options(options, [*_list_flags(profile, window_size), *arguments])
        driver = _start(pair, profile, chosen, chrome_class)
        try:
            driver.set_page_load_timeout(page_load_timeout_seconds)
            yield driver
        finally:
            # Seen before they leave: if this process is PID 1, Chrome's orphans become its children.
            children = _list_processes(profile) | {driver.service.process.pid}
            driver.quit()
    finally:
        try:
            _end_processes(profile, children)
        finally:
            shutil.rmtree(profile, ignore_errors=True)


def _load_chrome(timeout_seconds: float) -> "type[webdriver.Chrome]":
    """Import Selenium (0.3 s, so only here) and build the driver class whose every wait has an end."""
    try:
        import urllib3  # noqa: PLC0415
        from selenium import webdriver  # noqa: PLC0415
    except ImportError as error:
        raise BrowserMissing(f"Selenium cannot be imported ({error}): {pairing.EXTRA_FIX}") from error

    class BoundedChrome(webdriver.Chrome):
        def start_client(self) -> None:
            # The hook before the session starts, so that this is bounded too. By default urllib3 sends a
            # GET or DELETE that timed out three times more.
            executor: Any = self.command_executor
            executor.client_config.timeout = timeout_seconds
            executor._conn.connection_pool_kw["retries"] = urllib3.Retry(connect=3, read=False)

        def start_session(self, capabilities: dict[str, Any]) -> None:
            with _watch_start(self.service.process):
                super().start_session(capabilities)

        def quit(self) -> None:
            ask = super().quit

            def attempt() -> None:
                with contextlib.suppress(Exception):  # What survives is killed.
                    ask()

            thread = threading.Thread(target=attempt, name="browser-quit", daemon=True)
            with contextlib.suppress(RuntimeError):  # No thread to be had at the cgroup's PID limit.
                thread.start()
                thread.join(QUIT_SECONDS)

    return BoundedChrome


@contextmanager
def _watch_start(chromedriver: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill chromedriver if Chrome dies at its start: on the pipe it would notice after 60 s only."""
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


def _list_flags(profile: Path, window_size: tuple[int, int]) -> list[str]:
    flags = [
        "--headless=new",
        f"--window-size={window_size[0]},{window_size[1]}",  # 1920x1080 costs 10 MiB more.
        f"--user-data-dir={profile}",
        "--remote-debugging-pipe",  # Chrome leaves 0.2 s after chromedriver dies, instead of never.
        "--disable-dev-shm-usage",  # A container's /dev/shm has 64 MB; full, it crashes tabs.
        "--disable-component-update",  # Its downloads have filled disks.
        "--disable-background-networking",  # No requests but the page's.
        "--no-first-run",
    ]
    return flags if pairing.is_sandbox_usable() else [*flags, "--no-sandbox"]


def _choose_options(options: "Options | None", flags: Sequence[str]) -> "Options":
    from selenium.webdriver.chrome.options import Options  # noqa: PLC0415

    chosen = copy.deepcopy(options) if options is not None else Options()
    for flag in flags:
        chosen.add_argument(flag)
    # Debian's Chromium opens a search engine's page first, and chromedriver's first command waits for it:
    # 5 s in one start of four where its name cannot be resolved.
    preferences = {"session.restore_on_startup": 4, "session.startup_urls": ["about:blank"]}
    given: dict[str, Any] = chosen.experimental_options.get("prefs", {})
    chosen.add_experimental_option("prefs", preferences | given)
    if sum(argument.startswith("--user-data-dir") for argument in chosen.arguments) > 1:
        raise ValueError("--user-data-dir: browser() gives each session a profile folder of its own")
    return chosen


def _start(
    pair: BrowserPair, profile: Path, options: "Options", chrome_class: "type[webdriver.Chrome]"
) -> "webdriver.Chrome":
    import urllib3  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    # Chrome's temporary folders and crash dumps go with the profile, even after a kill.
    crashes = str(profile / "crashes")
    environment = {**os.environ, PROFILE_VARIABLE: str(profile), "BREAKPAD_DUMP_LOCATION": crashes}
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
            popen_kw={"preexec_fn": pairing.tie_to_owner(os.getpid())},
        )
        driver = chrome_class(options, service)
    except (BrowserNotStarted, WebDriverException, urllib3.exceptions.HTTPError, OSError) as error:
        raise BrowserNotStarted(f"{pair.chrome} under {pair.chromedriver} did not start: {error}") from error
    if driver.service.process.poll() is not None:
        # Its port was taken, and the session belongs to the chromedriver that has it.
        raise BrowserNotStarted(f"{pair.chromedriver} left at once: port {driver.service.port} was taken")
    return driver


def _list_processes(profile: Path) -> set[int]:
    """Find the live processes (PIDs) of this profile's session in /proc, in 3 to 10 ms.

    Chrome overwrites both argv and environ, each in other processes: only together they name all. The
    crashpad handlers leave the tree, so descent would miss them.
    """
    marks = {"environ": f"{PROFILE_VARIABLE}={profile}", "cmdline": f"--user-data-dir={profile}"}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        for name, mark in marks.items():
            with contextlib.suppress(OSError):
                if os.fsencode(mark) in (folder / name).read_bytes():
                    found.add(int(folder.name))
    return found


def _end_processes(profile: Path, children: set[int]) -> None:
    """Kill what is left of the session, and reap those of it and of `children` (PIDs) that are ours."""
    deadline = time.monotonic() + KILL_SECONDS
    unreaped = set(children)
    while (found := _list_processes(profile)) or unreaped:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        unreaped = {pid for pid in unreaped | found if not _reap(pid)}
        if time.monotonic() > deadline:
            logger.warning("processes %s of %s outlived SIGKILL", sorted(found | unreaped), profile)
            return
        time.sleep(0.02)


def _reap(pid: int) -> bool:
    """Say whether nothing of `pid` is left for us to reap: it is reaped, or was never our child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
