"""Reading documents from the tax office's site, in a browser that somebody else has opened."""

from typing import TypedDict, cast

from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

WAIT_SECONDS = 10.0
# Selenium looks twice a second; one look costs about 3 ms here, a needless wait up to 500.
POLL_SECONDS = 0.02
PAGE_LOAD_TIMEOUT_SECONDS = 20.0


class ScrapedDocument(TypedDict):
    """One document: `date` as YYYY-MM-DD, `amount` in whole pesos."""

    folio: int
    issuer: str
    date: str
    amount: int


class ScrapeError(RuntimeError):
    """The site did not give the documents; the text says what it gave."""


class LoginRefused(ScrapeError):
    """The site refused the user or the password, or asked for the login again after it."""


class SessionExpired(ScrapeError):
    """The site ended the session before the work was done."""


class SiteBroken(ScrapeError):
    """The site answered with an error, or not in time."""


class _View(TypedDict):
    """What the browser shows: one of login, table, fault, or nothing yet."""

    kind: str
    text: str
    page: int
    last: bool
    rows: list[list[str]]


# One call for the whole table. Asking for each cell by itself would be 40 calls a page.
_LOOK = """
const text = (selector) => document.querySelector(selector)?.textContent.trim() ?? "";
const view = (kind, more) => ({kind, text: "", page: 0, last: true, rows: [], ...more});
if (location.protocol === "chrome-error:") {
  return view("fault", {text: text(".error-code") || document.title});
}
if (document.readyState === "loading") return view("nothing");
if (document.querySelector("#fault")) return view("fault", {text: text("#fault")});
if (document.querySelector("#login")) {
  const expired = new URLSearchParams(location.search).get("reason") === "expired";
  return view(expired ? "expired" : "login", {text: text("#problem")});
}
const table = document.querySelector("#documents");
if (table?.dataset.state === "failed") return view("fault", {text: text("#problem")});
if (table?.dataset.state !== "ready") return view("nothing");
return view("table", {
  page: Number(table.dataset.page),
  last: document.querySelector("#next").disabled,
  rows: Array.from(table.tBodies[0].rows, (row) => Array.from(row.cells, (cell) => cell.textContent)),
});
"""


def scrape_documents(
    driver: WebDriver, site_url: str, user: str, password: str, pages: int
) -> list[ScrapedDocument]:
    """Log in as `user` and read the first `pages` pages of documents (or all, if there are fewer).

    Raises LoginRefused, SessionExpired or SiteBroken; Selenium's TimeoutException if a page does not
    load within the driver's page-load timeout, its WebDriverException if the site cannot be reached.
    """
    _log_in(driver, site_url, user, password)
    documents: list[ScrapedDocument] = []
    for page in range(1, pages + 1):
        view = _await_table(driver, page)
        documents += [_parse_row(row) for row in view["rows"]]
        if view["last"] or page == pages:
            break
        driver.find_element(By.ID, "next").click()
    return documents


def _log_in(driver: WebDriver, site_url: str, user: str, password: str) -> None:
    driver.get(f"{site_url}/login")
    view = _look(driver)
    if view["kind"] == "fault":
        raise SiteBroken(f"the login page shows: {view['text']}")
    driver.find_element(By.NAME, "user").send_keys(user)
    driver.find_element(By.NAME, "password").send_keys(password)
    # Marks this document, so that the next one, perhaps a login form too, is not taken for it.
    driver.execute_script("document.querySelector('#login').id = 'login-sent'")
    driver.find_element(By.CSS_SELECTOR, "#login-sent button").click()


def _await_table(driver: WebDriver, page: int) -> _View:
    """Wait until page `page` is shown."""
    view = _await_view(driver)
    if view["kind"] == "fault":
        raise SiteBroken(f"page {page} shows: {view['text']}")
    if view["kind"] == "expired":
        raise SessionExpired(f"the session ended before page {page}")
    if view["kind"] == "login":
        raise LoginRefused(view["text"] or "the site asked for the login again")
    if view["page"] != page:
        raise SiteBroken(f"page {view['page']} is shown instead of page {page}")
    return view


def _await_view(driver: WebDriver) -> _View:
    def look(driver: WebDriver) -> _View | None:
        view = _look(driver)
        return None if view["kind"] == "nothing" else view

    try:
        view = WebDriverWait(driver, WAIT_SECONDS, POLL_SECONDS).until(look)
    except TimeoutException as error:
        raise SiteBroken(f"no documents within {WAIT_SECONDS:g} s at {driver.current_url}") from error
    return cast(_View, view)  # `until` gives no None, but its type does not say so


def _look(driver: WebDriver) -> _View:
    return cast(_View, driver.execute_script(_LOOK))


def _parse_row(cells: list[str]) -> ScrapedDocument:
    """Turn `["1234", "Issuer", "07-11-2025", "$1.234.567"]` into a document."""
    folio, issuer, day_month_year, amount = cells
    return ScrapedDocument(
        folio=int(folio),
        issuer=issuer,
        date="-".join(reversed(day_month_year.split("-"))),
        amount=int(amount.removeprefix("$").replace(".", "")),
    )
