"""For the tests of those who use us: a browser as their tasks have it. pytest finds this by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium import webdriver


@pytest.fixture
def managed_browser_options() -> dict[str, Any]:
    """What `managed_browser` passes on to `browser()`; to be overridden in a module or a conftest.py."""
    return {}


@pytest.fixture
def managed_browser(managed_browser_options: dict[str, Any]) -> Iterator[webdriver.Chrome]:
    """A headless Chrome for one test, of which nothing is left after it."""
    # Imported here: tests without a browser are to start no slower for it.
    from recyclery_worker.browser import browser  # noqa: PLC0415

    with browser(**managed_browser_options) as driver:
        yield driver
