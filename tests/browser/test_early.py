"""Before the first task: a pair that does not fit ends the start, and a missing Chrome is said."""

from pathlib import Path

import pytest

from support.supervised import supervised

APP = """
import os
from celery import Celery
from recyclery_worker.browser import browser
app = Celery(broker=os.environ["REDIS_URL"])
"""
OTHER_APP = APP.replace("from recyclery_worker.browser import browser\n", "")
CHROME, DRIVER = "Chromium 156.0.8078.79", "ChromeDriver 99.0.1.2 (abc)"


@pytest.fixture
def unfit_pair(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine with a Chrome and a driver of another major version."""
    variables = {"PYTHONPATH": str(tmp_path)}
    for variable, text in (("CHROME_BINARY", CHROME), ("CHROMEDRIVER", DRIVER)):
        program = tmp_path / variable.lower()
        program.write_text(f"#!/bin/sh\necho '{text}'\n")
        program.chmod(0o755)
        variables[variable] = str(program)
    return variables


def started_with(app: str, folder: Path, redis_url: str, variables: dict[str, str]) -> tuple[int | None, str]:
    """Return the exit code of a supervisor that ends by itself (None: it came up) and what it printed."""
    (folder / "browsing_app.py").write_text(app)
    environment = {"CELERY_APP": "browsing_app", **variables}
    with supervised("--pool", "slow", redis_url=redis_url, environment=environment) as running:
        try:
            running.wait_until_ready("slow")
        except AssertionError:
            return running.wait(), running.output
        return None, running.output


def test_a_pair_that_does_not_fit_ends_the_start_with_78_and_shows_both(
    fresh_redis: str, tmp_path: Path, unfit_pair: dict[str, str]
) -> None:
    code, output = started_with(APP, tmp_path, fresh_redis, unfit_pair)
    assert code == 78
    assert [word for word in ("browser()", "156.0.8078.79", "99.0.1.2", "apt-get") if word not in output] == []
    assert "Traceback" not in output


@pytest.mark.slow
def test_an_app_that_uses_no_browser_starts_whatever_pair_there_is(
    fresh_redis: str, tmp_path: Path, unfit_pair: dict[str, str]
) -> None:
    assert started_with(OTHER_APP, tmp_path, fresh_redis, unfit_pair)[0] is None


@pytest.mark.slow
def test_with_a_grid_no_local_browser_is_searched(
    fresh_redis: str, tmp_path: Path, unfit_pair: dict[str, str]
) -> None:
    grid = {"SELENIUM_REMOTE_URL": "http://127.0.0.1:1"}
    assert started_with(APP, tmp_path, fresh_redis, unfit_pair | grid)[0] is None


def test_without_any_chrome_the_workers_start_and_say_what_will_fail(fresh_redis: str, tmp_path: Path) -> None:
    # A fast pool's image has none, and its app is the same.
    (tmp_path / "bin").mkdir()
    hidden = "import recyclery_worker.browser.driver as driver\ndriver.FOLDERS = ()\n"
    variables = {"PATH": str(tmp_path / "bin"), "PYTHONPATH": str(tmp_path)}
    code, output = started_with(APP + hidden, tmp_path, fresh_redis, variables)
    assert code is None
    assert "tasks that use browser() will fail: no Chrome: looked for chromium" in output
