"""Find a Chrome and a chromedriver that fits it, and what is needed to start them."""

import contextlib
import fcntl
import functools
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

CHROME_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FOLDERS = (
    Path("/usr/lib/chromium"),
    Path("/usr/lib/chromium-browser"),
    Path("/snap/bin"),
    Path("/snap/chromium/current/usr/lib/chromium-browser"),
)
VERSION_SECONDS = 15.0
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
INSTALL_SECONDS = 120.0
CACHE_DAYS = 365
PR_SET_PDEATHSIG = 1
PAIR_FIX = "apt-get install chromium chromium-driver"
EXTRA_FIX = "pip install 'recyclery[browser]'"


class BrowserMissing(RuntimeError):
    """There is no Chrome with a chromedriver that fits it; the message says what was tried and what to do."""


class ChromeMissing(BrowserMissing):
    """There is no Chrome at all, as in an image for tasks that need none."""


@dataclass(frozen=True)
class BrowserPair:
    """A Chrome and a chromedriver of the same major version; `version` is Chrome's, such as 156.0.8078.79."""

    chrome: Path
    chromedriver: Path
    version: str


def import_selenium() -> ModuleType:
    """Import Selenium's webdriver, late, as that takes 0.3 s; raises BrowserMissing where there is none."""
    try:
        from selenium import webdriver  # noqa: PLC0415
    except ImportError as error:
        raise BrowserMissing(f"Selenium cannot be imported ({error}): {EXTRA_FIX}") from error
    return webdriver


@functools.cache
def is_sandbox_usable() -> bool:
    """Return whether Chrome's sandbox works: never as root, and seccomp or AppArmor may refuse it, so try."""
    if os.geteuid() == 0:
        return False
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["unshare", "--user", "--net", "true"]
        return subprocess.run(command, capture_output=True, timeout=5, check=False).returncode == 0
    return False


def tie_to_owner(owner: int) -> Callable[[], None]:
    """Return a preexec_fn that has the kernel kill the child when `owner` (a PID) dies."""
    import ctypes  # noqa: PLC0415

    prctl = ctypes.CDLL(None).prctl  # Looked up before the fork, as few calls are safe after it.

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != owner:  # It died before the call.
            os._exit(1)

    return tie


@dataclass(frozen=True)
class _Binary:
    path: Path
    product: str
    version: str

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    def __str__(self) -> str:
        return f"{self.path} ({self.version})"


@functools.cache
def find_browser() -> BrowserPair:
    """Find the pair to use, once per process; children that are forked later inherit it.

    In order: CHROME_BINARY and CHROMEDRIVER from the environment, a pair on PATH and in the usual folders,
    a chromedriver that webdriver-manager downloads into RECYCLERY_DRIVER_CACHE, default ~/.wdm (each
    request ends 30 s after the last byte). Raises BrowserMissing, which is not remembered.
    """
    chromes = _find_all("CHROME_BINARY", CHROME_NAMES, FOLDERS)
    folders = [*FOLDERS, *(chrome.path.resolve().parent for chrome in chromes)]
    drivers = _find_all("CHROMEDRIVER", ("chromedriver",), folders)
    for chrome, driver in itertools.product(chromes, drivers):
        if chrome.major == driver.major:
            return BrowserPair(chrome.path, driver.path, chrome.version)
    if not chromes:
        raise ChromeMissing(
            f"no Chrome: looked for {', '.join(CHROME_NAMES)} on PATH and in {_join(FOLDERS)}. "
            f"Run: {PAIR_FIX} (Debian), or set CHROME_BINARY and CHROMEDRIVER"
        )
    if os.environ.get("CHROMEDRIVER"):
        source = "CHROME_BINARY" if os.environ.get("CHROME_BINARY") else "the Chrome found"
        raise BrowserMissing(
            f"CHROMEDRIVER={drivers[0]} does not fit {source}: {_join(chromes)}. The major versions must be "
            f"equal. Unset CHROMEDRIVER, or run: {PAIR_FIX} (Debian)"
        )
    chrome = chromes[0]
    try:
        path = _install_driver(chrome)
    except BrowserMissing:
        raise
    except Exception as error:  # webdriver-manager raises bare Exception, ValueError, requests' errors.
        raise BrowserMissing(
            f"no chromedriver {chrome.major} for {chrome}: found {_join(drivers) or 'none'}, and downloading "
            f"one failed: {error}. Run: {PAIR_FIX} (Debian)"
        ) from error
    return BrowserPair(chrome.path, path, chrome.version)


def _join(things: Sequence[object]) -> str:
    return ", ".join(str(thing) for thing in things)


def _find_all(variable: str, names: Sequence[str], folders: Sequence[Path]) -> list[_Binary]:
    """List the working binaries: the one in `variable`, else those of `names` on PATH, then in `folders`."""
    if explicit := os.environ.get(variable):
        path = Path(explicit)
        if not path.is_file() or not os.access(path, os.X_OK):
            # Images may share the variable, also one that has no Chrome.
            kind = ChromeMissing if names is CHROME_NAMES else BrowserMissing
            raise kind(f"{variable}={explicit} is not an executable file. Correct it or unset it")
        if (binary := _identify(path)) is None:
            raise BrowserMissing(f"{variable}={explicit} did not print a version for --version")
        return [binary]
    found: dict[Path, _Binary] = {}
    for folder, name in itertools.product((None, *folders), names):
        place = shutil.which(name, path=None if folder is None else str(folder))
        if place and Path(place) not in found and (binary := _identify(Path(place))):
            found[Path(place)] = binary
    return list(found.values())


def _identify(path: Path) -> _Binary | None:
    """Return a binary with product and version; None if it fails, hangs or prints no version."""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"^(\D*?)\s*(\d+(?:\.\d+){2,3})\b", answer)
    return _Binary(path, match[1], match[2]) if match else None


def _install_driver(chrome: _Binary) -> Path:
    """Have webdriver-manager download a chromedriver for `chrome`, or use the one in its cache."""
    # Its own lock is a file that a killed installer leaves behind, and it writes its index in place: both are
    # repaired under a lock of ours, which ends with its holder.
    try:
        import requests  # noqa: PLC0415
        from webdriver_manager.chrome import ChromeDriverManager  # noqa: PLC0415
        from webdriver_manager.core.download_manager import WDMDownloadManager  # noqa: PLC0415
        from webdriver_manager.core.driver_cache import DriverCacheManager  # noqa: PLC0415
        from webdriver_manager.core.http import HttpClient  # noqa: PLC0415
        from webdriver_manager.core.os_manager import ChromeType, OperationSystemManager  # noqa: PLC0415
    except ImportError as error:
        raise BrowserMissing(
            f"no chromedriver {chrome.major} for {chrome}, and webdriver-manager, which could download one, "
            f"cannot be imported ({error}). Run: {PAIR_FIX} (Debian), or {EXTRA_FIX}"
        ) from error

    class TimedClient(HttpClient):
        def get(self, url: str, params: object = None, **_: object) -> requests.Response:
            response = requests.get(url, timeout=(CONNECT_SECONDS, READ_SECONDS))
            self.validate_response(response)
            return response

    class KnownSystem(OperationSystemManager):
        def get_browser_version_from_os(self, browser_type: str | None = None) -> str:
            # Its own search would ask the first Chrome on PATH. Its cache is keyed by three parts.
            return ".".join(chrome.version.split(".")[:3])

    system = KnownSystem()  # type: ignore[no-untyped-call]
    cache = DriverCacheManager(  # type: ignore[no-untyped-call]
        root_dir=os.environ.get("RECYCLERY_DRIVER_CACHE"), valid_range=CACHE_DAYS, os_system_manager=system
    )
    manager = ChromeDriverManager(
        chrome_type=ChromeType.CHROMIUM if "Chromium" in chrome.product else ChromeType.GOOGLE,
        download_manager=WDMDownloadManager(TimedClient()),  # type: ignore[no-untyped-call]
        cache_manager=cache,
        os_system_manager=system,
    )
    os_type = manager.get_os_type()  # type: ignore[no-untyped-call]
    lock = Path(cache.get_driver_lock_path("chromedriver", os_type))
    with _hold_lock(lock.with_name(".recyclery-lock")):
        if not _is_held_open(lock):
            lock.unlink(missing_ok=True)
        index = lock.with_name("drivers.json")
        with contextlib.suppress(FileNotFoundError):
            try:
                json.loads(index.read_text())
            except ValueError:
                index.unlink()
        path = Path(manager.install())
    binary = _identify(path)
    if binary is None or binary.major != chrome.major:
        raise BrowserMissing(
            f"the chromedriver downloaded for {chrome} is {binary or f'{path}, which does not run'}. "
            f"Run: {PAIR_FIX} (Debian)"
        )
    return path


@contextmanager
def _hold_lock(path: Path) -> Iterator[None]:
    deadline = time.monotonic() + INSTALL_SECONDS
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{path} was locked for {INSTALL_SECONDS:.0f} s") from None
                time.sleep(0.1)
        yield


def _is_held_open(path: Path) -> bool:
    # As webdriver-manager holds it while it installs.
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if descriptor.samefile(path):
                return True
    return False
