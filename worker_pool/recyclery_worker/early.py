"""Looks for the browser before any task does: once for all children, and in time to say what is amiss."""

from __future__ import annotations

import os
import sys


def find_browser_early() -> str:
    """Find the pair that `browser()` will use, where the app has imported that and no Grid is named.

    Returns what is amiss where there is no Chrome at all, which may be meant so, else an empty text. Raises
    BrowserMissing where there is a Chrome and no driver fits it.
    """
    if "recyclery_worker.browser" not in sys.modules or os.environ.get("SELENIUM_REMOTE_URL", "").strip():
        return ""
    # Importing it would look like the app's doing.
    from recyclery_worker.browser.driver import ChromeMissing, find_browser  # noqa: PLC0415

    try:
        find_browser()
    except ChromeMissing as missing:
        return str(missing)
    return ""
