"""Chrome and its driver, where the app's tasks use `browser()`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from recyclery.doctor.findings import Finding, failure, ok, skipped, warning


@dataclass(frozen=True)
class BrowserFacts:
    """The pair that would be used, or what is amiss."""

    used: bool
    remote: bool = False
    pair: str = ""
    missing: str = ""
    """There is no Chrome."""
    mismatch: str = ""
    """There is one, and no driver fits it."""
    sandbox: bool = True


def look_at_browser(*, used: bool) -> BrowserFacts:
    """Find the pair as `browser()` does; `used` where the app has imported that."""
    if not used:
        return BrowserFacts(used=False)
    if os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return BrowserFacts(used=True, remote=True)
    # Here: Selenium is the user's to install, and no other command needs it.
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


def judge_browser(facts: BrowserFacts) -> Iterator[Finding]:
    """Say whether tasks will find a browser."""
    if not facts.used:
        yield skipped("browser", "the app does not import recyclery_worker.browser")
    elif facts.remote:
        yield ok("browser", "on the Selenium Grid that SELENIUM_REMOTE_URL names")
    elif facts.missing:
        yield warning(
            "browser", facts.missing, "only in the container of the pool that needs one; there install it"
        )
    elif facts.mismatch:
        yield failure("browser", facts.mismatch, "install a driver of the same major version")
    else:
        yield ok("browser", facts.pair if facts.sandbox else f"{facts.pair}, without Chrome's sandbox")
