"""What careless tasks leave in their worker process, done on purpose."""

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from app.scraping import PAGE_LOAD_TIMEOUT_SECONDS
from recyclery_worker.browser import find_browser

# Without a reference Selenium's Service stops chromedriver as it is collected, and nothing would leak.
forgotten_browsers: list[webdriver.Chrome] = []
left_memory: list[bytearray] = []


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
        # Not bytearray(size): that is zeroed memory the kernel only promises.
        left_memory.append(bytearray(b"\xa5") * size_bytes)
