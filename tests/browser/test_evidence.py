"""What is kept of a browser whose block raised."""

import os
import signal
import time
from pathlib import Path

import pytest

from recyclery_worker.browser import browser
from recyclery_worker.browser.context import COLLECT_SECONDS, KEPT_CASES, default_dir, keep_evidence
from support.browsers import open_session

PAGE = "data:text/html,<title>a title</title><h1>text</h1><script>console.error('it broke')</script>"


class NoBrowser:
    """Whatever is asked of it fails."""


@pytest.mark.browser
def test_a_failed_block_leaves_screenshot_page_console_and_the_error_in_a_folder_that_the_error_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", str(tmp_path))
    with pytest.raises(LookupError) as raised, browser() as driver:  # noqa: PT012
        driver.get(PAGE)
        raise LookupError("no such row")
    [case] = tmp_path.iterdir()
    assert raised.value.__notes__ == [f"What the browser showed: {case}"]
    assert (case / "screenshot.png").read_bytes().startswith(b"\x89PNG")
    assert "<h1>text</h1>" in (case / "page.html").read_text()
    assert "it broke" in (case / "console.txt").read_text()
    assert "a title" in (case / "url.txt").read_text()
    assert "LookupError: no such row" in (case / "error.txt").read_text()


@pytest.mark.browser
def test_a_frozen_browser_costs_no_more_than_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", str(tmp_path))
    with pytest.raises(LookupError), browser() as driver:  # noqa: PT012
        os.kill(open_session(driver).browser_pid(), signal.SIGSTOP)
        began = time.monotonic()
        raise LookupError("no such row")
    assert time.monotonic() - began < COLLECT_SECONDS + 6
    [case] = tmp_path.iterdir()
    assert [file.name for file in case.iterdir()] == ["error.txt"]


@pytest.mark.browser
def test_a_block_that_is_interrupted_leaves_no_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), browser():
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_only_the_newest_evidence_folders_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT_CASES + 3):
        (tmp_path / f"2026010{number // 10}-{number % 10}").mkdir()
    newest = keep_evidence(NoBrowser(), LookupError("x"), tmp_path)
    cases = sorted(tmp_path.iterdir())
    assert (len(cases), cases[-1]) == (KEPT_CASES, newest)


def test_a_folder_that_cannot_be_written_to_loses_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = LookupError("x")
    assert keep_evidence(NoBrowser(), error, tmp_path / "file") is None
    assert not hasattr(error, "__notes__")


def test_a_folder_that_is_a_link_somebody_made_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "theirs")
    assert keep_evidence(NoBrowser(), LookupError("x"), tmp_path / "link") is None
    assert list((tmp_path / "theirs").iterdir()) == []


def test_the_evidence_folder_is_private(tmp_path: Path) -> None:
    case = keep_evidence(NoBrowser(), LookupError("x"), tmp_path / "new")
    assert case is not None
    assert [oct(path.stat().st_mode & 0o777) for path in (case.parent, case)] == ["0o700", "0o700"]


def test_an_empty_variable_turns_evidence_off_and_without_one_it_is_in_a_private_temporary_folder(
    monkeypatch: pytest.MonkeyPatch, private_tmp: Path
) -> None:
    monkeypatch.setenv("RECYCLERY_EVIDENCE_DIR", "")
    assert default_dir() is None
    monkeypatch.delenv("RECYCLERY_EVIDENCE_DIR")
    assert default_dir() == private_tmp / f"recyclery-evidence-{os.geteuid()}"
