"""Browsers for tasks: `browser()` starts one right and leaves nothing of it behind."""

from recyclery_worker.browser.driver import BrowserMissing, BrowserPair, find_browser
from recyclery_worker.browser.session import BrowserNotStarted, browser

__all__ = ["BrowserMissing", "BrowserNotStarted", "BrowserPair", "browser", "find_browser"]
