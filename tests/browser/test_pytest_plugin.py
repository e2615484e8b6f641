"""The fixture for other people's test suites, in a suite of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest

@pytest.fixture
def managed_browser_options():
    return {"user_agent": "mine"}

def test_a_page(managed_browser):
    managed_browser.get("data:text/html,<title>a title</title>")
    assert managed_browser.title == "a title"
    assert managed_browser.execute_script("return navigator.userAgent") == "mine"

def test_that_fails(managed_browser):
    raise LookupError("no such row")
"""


@pytest.mark.browser
def test_a_suite_gets_a_browser_of_its_own_choosing_and_leaves_none_behind(
    tmp_path: Path, private_tmp: Path
) -> None:
    (tmp_path / "test_pages.py").write_text(SUITE)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed" in run.stdout, run.stdout
    assert list(private_tmp.glob("recyclery-profile-*")) == []


def test_a_suite_without_a_browser_imports_nothing_of_ours_but_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "test_plain.py").write_text(
        "import sys\n"
        "def test_plain():\n"
        "    assert not {'recyclery_worker.browser', 'celery'} & set(sys.modules)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in run.stdout, run.stdout
