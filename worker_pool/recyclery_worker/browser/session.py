"""One Chrome on this machine, under chromedriver, in a profile folder of its own.

Whatever ends it, every process of it is ended, chromedriver is reaped and the folder removed. Figures in the
comments were measured on Chromium 156 with Selenium 4.51.
"""

import contextlib
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from recyclery_worker.browser.bounded import BrowserNotStarted, bound_chrome
from recyclery_worker.browser.driver import BrowserPair, find_browser, tie_to_owner
from recyclery_worker.browser.profiles import VARIABLE, Profile, end_processes, list_processes, make_profile
from recyclery_worker.browser.wanted import Wanted

if TYPE_CHECKING:
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options

PROFILE_PATH_BYTES = 57  # A socket's path has 107; below it comes tmp/org.chromium.Chromium.XXXXXX/Singleton…


@dataclass
class LocalSession:
    """A running browser; `uses` counts the blocks that had it."""

    driver: "webdriver.Chrome"
    profile: Profile
    started: float = field(default_factory=time.monotonic)
    uses: int = 0

    @property
    def pid(self) -> int:
        """Chromedriver's."""
        return int(self.driver.service.process.pid)

    def held_bytes(self) -> int:
        """Return RssAnon + RssShmem of all its processes (proc(5)), near what the cgroup is charged."""
        return sum(map(read_anon_bytes, list_processes(self.profile.path)))

    def end(self) -> None:
        """End every process of it and remove its files, in 8 s at most, mostly in 0.2 s."""
        children: set[int] = set()
        try:
            # Seen before they leave: if this process is PID 1, Chrome's orphans become its children.
            children = list_processes(self.profile.path) | {self.pid}
            self.driver.quit()
        finally:
            end_profile(self.profile, children)


def start_local(wanted: Wanted) -> LocalSession:
    """Start a browser; raises BrowserMissing (no usable pair, or no Selenium), BrowserNotStarted."""
    chrome_class, pair = bound_chrome(wanted.command_timeout_seconds), find_browser()
    profile = make_profile()
    try:
        options = wanted.make_options(profile.path)
        driver = start_driver(pair, profile.path, options, chrome_class)
        return LocalSession(driver, profile)
    except BaseException:
        end_profile(profile, set())
        raise


def end_profile(profile: Profile, children: set[int]) -> None:
    """End all that was started for a profile, and remove it."""
    try:
        end_processes(profile.path, children)
    finally:
        profile.remove()


def start_driver(
    pair: BrowserPair, profile: Path, options: "Options", chrome_class: "type[webdriver.Chrome]"
) -> "webdriver.Chrome":
    """Start chromedriver, tied to this very thread, and Chrome under it; raises BrowserNotStarted."""
    import urllib3  # noqa: PLC0415
    from selenium.common.exceptions import WebDriverException  # noqa: PLC0415
    from selenium.webdriver.chrome.service import Service  # noqa: PLC0415

    # Chrome's temporary folders and crash dumps go with the profile, even after a kill.
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
        # Its port was taken, and the session belongs to the chromedriver that has it.
        raise BrowserNotStarted(f"{pair.chromedriver} left at once: port {driver.service.port} was taken")
    return driver


def read_anon_bytes(pid: int) -> int:
    """Return what a process holds of its own and of shared memory; 0 when it is gone."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith((b"RssAnon", b"RssShmem")))
    return 0
