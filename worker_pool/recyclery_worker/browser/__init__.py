"""Browsers for tasks: `browser()` starts one, here or on a Grid, and leaves nothing of it behind.

It may be called from any code; the modules of this package are its own.
"""

from recyclery_worker.browser.context import browser
from recyclery_worker.browser.driver import BrowserMissing, BrowserPair, find_browser
from recyclery_worker.browser.session import BrowserNotStarted

__all__ = ["BrowserMissing", "BrowserNotStarted", "BrowserPair", "browser", "find_browser"]
