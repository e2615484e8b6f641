"""For the tests of our users: a browser as their tasks get it. pytest finds this plugin by its entry point."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from selenium import webdriver


@pytest.fixture
def managed_browser_options() -> dict[str, Any]:
    """The arguments of `browser()` for `managed_browser`; override it in a module or a conftest.py."""
    return {}


@pytest.fixture
def managed_browser(managed_browser_options: dict[str, Any]) -> Iterator[webdriver.Chrome]:
    """A headless Chrome for one test, of which nothing is left after it."""
    # Imported late, so that tests without a browser start no slower.
    from recyclery_worker.browser import browser  # noqa: PLC0415

    with browser(**managed_browser_options) as driver:
        yield driver
