"""Browsers for tasks: `browser()` starts one right, here or on a Grid, and leaves nothing of it behind.

May be called from any code; what is below belongs to it alone.
"""

from recyclery_worker.browser.bounded import BrowserNotStarted
from recyclery_worker.browser.context import browser
from recyclery_worker.browser.driver import BrowserMissing, BrowserPair, find_browser

__all__ = ["BrowserMissing", "BrowserNotStarted", "BrowserPair", "browser", "find_browser"]
