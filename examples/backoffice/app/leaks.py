"""What careless tasks leave in their worker process, done on purpose."""

import os
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from app.scraping import PAGE_LOAD_TIMEOUT_SECONDS
from recyclery_worker.browser import find_browser

# Without a reference Selenium's Service stops chromedriver as it is collected, and nothing would leak.
forgotten_browsers: list[webdriver.Chrome] = []
left_memory: list[bytearray] = []
cache: list[bytearray] = []

left_files: list[int] = []

TAKEN_SECONDS = 0.5
FORKS = 6
SHARED_SECONDS = 1.0
TASKS_TO_FILL_CACHE = 6


def forget_browser() -> webdriver.Chrome:
    """Start a browser that nobody will ever quit."""
    found = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = str(found.chrome)
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    # As browser() does: not to wait for the start page that Debian's Chromium opens.
    preferences = {"session.restore_on_startup": 4, "session.startup_urls": ["about:blank"]}
    options.add_experimental_option("prefs", preferences)
    driver = webdriver.Chrome(options=options, service=Service(str(found.chromedriver)))
    driver.set_page_load_timeout(PAGE_LOAD_TIMEOUT_SECONDS)
    forgotten_browsers.append(driver)
    return driver


def leave_memory(size_bytes: int) -> None:
    """Keep `size_bytes` more in this process, each page written so that the kernel must supply it."""
    if size_bytes > 0:
        left_memory.append(_written(size_bytes))


def take_memory(size_bytes: int) -> None:
    """Hold `size_bytes` for a moment, as a task with a large document does, and give them back."""
    if size_bytes > 0:
        taken = _written(size_bytes)
        time.sleep(TAKEN_SECONDS)
        del taken


def share_memory(size_bytes: int) -> None:
    """Hold `size_bytes` for a moment, and fork processes that share them, as multiprocessing does."""
    if size_bytes > 0:
        taken = _written(size_bytes)
        processes = [_sleep_in_fork() for _ in range(FORKS)]
        for pid in processes:
            os.waitpid(pid, 0)
        del taken


def _sleep_in_fork() -> int:
    pid = os.fork()
    if pid == 0:
        time.sleep(SHARED_SECONDS)
        os._exit(0)
    return pid


def leave_file(size_bytes: int) -> None:
    """Keep a file without a name open, whose `size_bytes` are memory."""
    if size_bytes > 0:
        file = os.memfd_create("left")
        os.write(file, _written(size_bytes))
        left_files.append(file)


def fill_cache(full_bytes: int) -> None:
    """Grow this process's cache by a sixth of `full_bytes` until it is full, and then no more."""
    if full_bytes > 0 and len(cache) < TASKS_TO_FILL_CACHE:
        cache.append(_written(full_bytes // TASKS_TO_FILL_CACHE))


def _written(size_bytes: int) -> bytearray:
    # Not bytearray(size): that is zeroed memory the kernel only promises.
    return bytearray(b"\xa5") * size_bytes
