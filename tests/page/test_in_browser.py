"""The page in a real Chromium: what it draws, at both widths, light and dark, and how it behaves."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from recyclery_worker.browser import browser
from support.layout import FAINT_TEXTS, OVERLAPS, SIDEWAYS, complaints, dress, watched_options
from support.pages import ODD_TASK, Served, serving_page
from support.waiting import wait_for

pytestmark = pytest.mark.browser

TOKEN = "a token for a page"
# A name as others have: of it a browser does not tell in `Sec-Fetch-Site` where a form is from.
ELSEWHERE = "page.example"
STEPS = {"15 min": "3 s", "6 h": "1 min", "24 h": "5 min", "7 d": "30 min"}


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    """One browser for all."""
    with browser(options=watched_options(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")) as driver:
        yield driver


@pytest.fixture
def served(recorded: Path) -> Iterator[Served]:
    """The page on loopback."""
    with serving_page(recorded) as served:
        yield served


def look(driver: webdriver.Chrome, served: Served) -> None:
    """Open the page and wait until all of it is drawn."""
    driver.get(f"http://127.0.0.1:{served.port}/")
    for part in ("#chart path.floor", "#pools table", "#leaks table", "#recent table"):
        wait_for(partial(driver.find_elements, By.CSS_SELECTOR, part), part)


def said(driver: webdriver.Chrome, selector: str) -> str:
    """Return the text of one element."""
    return str(driver.execute_script("return document.querySelector(arguments[0]).textContent", selector))


def shows(driver: webdriver.Chrome, step: str) -> bool:
    """Tell whether the chart is drawn in steps of that length."""
    return said(driver, "#legend").endswith(f"steps of {step}")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_needs_no_sideways_scrolling_and_the_console_stays_empty(
    driver: webdriver.Chrome, served: Served, width: int, scheme: str
) -> None:
    # The page of the test before still asks its server, which is gone.
    driver.get("about:blank")
    complaints(driver)
    dress(driver, width, scheme)
    look(driver, served)
    driver.execute_script("document.querySelector('#actions').open = true")
    assert driver.execute_script(SIDEWAYS) == []
    assert driver.execute_script(OVERLAPS) == []
    assert driver.execute_script(FAINT_TEXTS) == []
    assert complaints(driver) == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_axes_tell_their_units_over_every_span(
    driver: webdriver.Chrome, served: Served, width: int
) -> None:
    dress(driver, width, "light")
    look(driver, served)
    for span, step in STEPS.items():
        button = driver.find_element(By.XPATH, f"//button[.='{span}']")
        button.click()
        wait_for(partial(shows, driver, step), f"{span} is drawn")
        texts = [text.text for text in driver.find_elements(By.CSS_SELECTOR, "#chart text")]
        assert sum(text.endswith(("MiB", "GiB")) for text in texts) >= 4
        assert sum(":" in text or len(text.split()) == 3 for text in texts) >= 2
        assert any(text.startswith("time, UTC") for text in texts)
        assert driver.execute_script(OVERLAPS) == []


def test_a_tasks_name_is_never_taken_for_markup(driver: webdriver.Chrome, served: Served) -> None:
    look(driver, served)
    driver.execute_script("document.querySelector('#actions').open = true")
    for part in ("#pools", "#leaks"):
        assert ODD_TASK in said(driver, part)
    assert driver.execute_script("return document.scripts.length") == 1


def test_every_action_can_be_read_from_the_chart_by_keys_and_in_the_table(
    driver: webdriver.Chrome, served: Served
) -> None:
    dress(driver, 1280, "light")
    look(driver, served)
    chart = driver.find_element(By.CSS_SELECTOR, "#chart svg")
    driver.execute_script("arguments[0].focus()", chart)
    chart.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    assert chart.get_attribute("aria-valuenow") == "1"
    chart.send_keys(Keys.END)
    chart.send_keys(Keys.SHIFT, Keys.ARROW_LEFT)
    why = "would pass its budget of 420 MiB"
    tip = driver.find_element(By.CSS_SELECTOR, ".tip")
    wait_for(lambda: "slow/" in tip.text, "an action is told")
    assert "not reclaimable: " in tip.text
    assert tip.text.splitlines()[0] in (chart.get_attribute("aria-valuetext") or "")
    chart.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    assert why in said(driver, "#actions-table")


def test_the_page_updates_itself_and_shows_when_the_supervisor_does_not_answer(
    driver: webdriver.Chrome, served: Served
) -> None:
    look(driver, served)
    served.status.pools["fast"].queue_depth = 4321
    wait_for(lambda: "4321 waiting" in said(driver, "#pools"), "news come by themselves")
    served.stop()
    silence = driver.find_element(By.ID, "silence")
    wait_for(lambda: "has not answered for" in silence.text, "the silence is told")
    assert "Below is how it was" in silence.text
    assert "4321 waiting" in said(driver, "#pools")
    complaints(driver)


def test_the_page_without_scripts_names_the_commands_to_use_instead(
    driver: webdriver.Chrome, served: Served
) -> None:
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        driver.get(f"http://127.0.0.1:{served.port}/")
        text = driver.find_element(By.TAG_NAME, "body").text
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "JavaScript is off" in text
    assert "recyclery top" in text


@pytest.mark.parametrize("host", ["127.0.0.1", ELSEWHERE])
def test_one_signs_in_with_the_token_and_out_again(driver: webdriver.Chrome, recorded: Path, host: str) -> None:
    with serving_page(recorded, host="0.0.0.0", token=TOKEN) as served:
        address = f"http://{host}:{served.port}/"
        driver.get(address)
        wait_for(lambda: driver.current_url.endswith("/sign-in"), "it asks for the token")
        complaints(driver)
        dress(driver, 390, "dark")
        driver.find_element(By.ID, "token").send_keys("wrong", Keys.ENTER)
        wait_for(lambda: "not the value" in said(driver, "#message"), "a wrong one is refused")
        assert driver.execute_script(OVERLAPS) == []
        assert driver.execute_script(FAINT_TEXTS) == []
        driver.find_element(By.ID, "token").send_keys(TOKEN, Keys.ENTER)
        wait_for(lambda: driver.find_elements(By.CSS_SELECTOR, "#pools table"), "the page")
        assert driver.current_url == address
        assert driver.execute_script("return document.cookie") == ""
        driver.find_element(By.CSS_SELECTOR, "#leave button").click()
        wait_for(lambda: driver.current_url.endswith("/sign-in"), "it asks for the token again")
        driver.get(address)
        assert driver.current_url.endswith("/sign-in")
