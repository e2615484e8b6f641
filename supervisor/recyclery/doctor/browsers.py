"""Chrome and its driver, where the app's tasks use `browser()`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from recyclery.doctor.findings import Finding, failure, ok, skipped, warning


@dataclass(frozen=True)
class BrowserFacts:
    """The Chrome and the driver that would be used, or what is wrong with them."""

    used: bool
    remote: bool = False
    pair: str = ""
    missing: str = ""
    """Why there is no Chrome."""
    mismatch: str = ""
    """Why no driver fits the Chrome."""
    sandbox: bool = True


def read_browser(*, used: bool) -> BrowserFacts:
    """Find the two as `browser()` does; `used` where the app has imported it."""
    if not used:
        return BrowserFacts(used=False)
    if os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return BrowserFacts(used=True, remote=True)
    # Imported lazily: installing Selenium is up to the user, and no other command needs it.
    from recyclery_worker.browser import driver  # noqa: PLC0415

    try:
        pair = driver.find_browser()
    except driver.ChromeMissing as error:
        return BrowserFacts(used=True, missing=str(error))
    except driver.BrowserMissing as error:
        return BrowserFacts(used=True, mismatch=str(error))
    return BrowserFacts(
        used=True,
        pair=f"{pair.chrome} {pair.version} with {pair.chromedriver}",
        sandbox=driver.is_sandbox_usable(),
    )


def browser_findings(facts: BrowserFacts) -> Iterator[Finding]:
    """Check that tasks will find a browser."""
    if not facts.used:
        yield skipped("browser", "the app does not import recyclery_worker.browser")
    elif facts.remote:
        yield ok("browser", "on the Selenium Grid that SELENIUM_REMOTE_URL names")
    elif facts.missing:
        yield warning(
            "browser", facts.missing, "only the container of a pool that uses one needs it: install it there"
        )
    elif facts.mismatch:
        yield failure("browser", facts.mismatch, "install a driver of the same major version")
    else:
        yield ok("browser", facts.pair if facts.sandbox else f"{facts.pair}, without Chrome's sandbox")
