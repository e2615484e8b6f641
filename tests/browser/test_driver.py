"""find_browser(): which pair it takes, and what it says when there is none."""

import builtins
import http.server
import io
import json
import os
import platform
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType
from urllib.parse import urlparse

import pytest
import requests

from recyclery_worker.browser import driver
from recyclery_worker.browser.driver import BrowserMissing, BrowserPair, find_browser

OWNER = os.getpid()
real_get = requests.get
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine with no browser: nothing on PATH, no usual folders, no settings, no network."""
    for variable in ("CHROME_BINARY", "CHROMEDRIVER"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "bin").mkdir()
    # webdriver-manager has a cache of its own for each of xdist's workers.
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RECYCLERY_DRIVER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(driver, "FOLDERS", (tmp_path / "usual",))
    monkeypatch.setattr("requests.get", refuse)
    find_browser.cache_clear()
    yield
    find_browser.cache_clear()


def refuse(url: str, **_: object) -> None:
    raise ConnectionError(f"no network in this test: {url}")


def script(version_line: str) -> str:
    return f"#!/bin/sh\necho '{version_line}'\n"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write an executable into the folder on PATH (or `folder`) that prints `text` for --version."""

    def write_binary(name: str, text: str, folder: str = "bin", mode: int = 0o755) -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(text))
        path.chmod(mode)
        return path

    return write_binary


CHROME_156 = "Chromium 156.0.8078.79 built on Debian GNU/Linux 12 (bookworm)"
CHROME_99 = "Google Chrome 99.0.1.2"
DRIVER_156 = "ChromeDriver 156.0.8078.5 (a21ce95c-refs/branch-heads/8078@{#1704})"
DRIVER_99 = "ChromeDriver 99.0.1.2 (abc)"


@pytest.mark.parametrize("name", driver.CHROME_NAMES)
def test_a_pair_on_path_is_found_under_each_name(write: Write, name: str) -> None:
    chrome, chromedriver = write(name, CHROME_156), write("chromedriver", DRIVER_156)
    assert find_browser() == BrowserPair(chrome, chromedriver, "156.0.8078.79")


def test_the_first_chrome_with_a_driver_of_its_major_version_is_taken(write: Write) -> None:
    write("chromium", CHROME_156)
    chrome, chromedriver = write("google-chrome", CHROME_99), write("chromedriver", DRIVER_99)
    assert find_browser() == BrowserPair(chrome, chromedriver, "99.0.1.2")


def test_a_driver_in_a_usual_folder_is_found(write: Write) -> None:
    chrome = write("chromium", CHROME_156)
    chromedriver = write("chromedriver", DRIVER_156, folder="usual")
    assert find_browser() == BrowserPair(chrome, chromedriver, "156.0.8078.79")


def test_a_driver_beside_the_file_that_the_chrome_on_path_links_to_is_found(
    write: Write, tmp_path: Path
) -> None:
    chromedriver = write("chromedriver", DRIVER_156, folder="opt/google")
    link = tmp_path / "bin" / "google-chrome"
    link.symlink_to(write("chrome", CHROME_156, folder="opt/google"))
    assert find_browser() == BrowserPair(link, chromedriver, "156.0.8078.79")


def test_a_fitting_driver_further_on_is_preferred_to_an_unfit_one_on_path(write: Write) -> None:
    write("chromium", CHROME_156)
    write("chromedriver", DRIVER_99)
    fitting = write("chromedriver", DRIVER_156, folder="usual")
    assert find_browser().chromedriver == fitting


def test_an_explicit_pair_wins_over_the_one_on_path(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write("chromium", CHROME_156)
    write("chromedriver", DRIVER_156)
    chrome = write("mychrome", CHROME_99, folder="own")
    chromedriver = write("mydriver", DRIVER_99, folder="own")
    monkeypatch.setenv("CHROME_BINARY", str(chrome))
    monkeypatch.setenv("CHROMEDRIVER", str(chromedriver))
    assert find_browser() == BrowserPair(chrome, chromedriver, "99.0.1.2")


def test_an_explicit_chrome_takes_the_fitting_driver_on_path(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    chrome, chromedriver = write("mychrome", CHROME_156, folder="own"), write("chromedriver", DRIVER_156)
    monkeypatch.setenv("CHROME_BINARY", str(chrome))
    assert find_browser() == BrowserPair(chrome, chromedriver, "156.0.8078.79")


@pytest.mark.parametrize("variable", ["CHROME_BINARY", "CHROMEDRIVER"])
@pytest.mark.parametrize("kind", ["missing", "not executable", "a folder"])
def test_an_explicit_path_that_cannot_run_is_named_with_its_variable(
    write: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str, kind: str
) -> None:
    write("chromium", CHROME_156)
    write("chromedriver", DRIVER_156)
    path = {
        "missing": tmp_path / "nowhere",
        "not executable": write("plain", CHROME_156, folder="own", mode=0o644),
        "a folder": tmp_path,
    }[kind]
    monkeypatch.setenv(variable, str(path))
    with pytest.raises(BrowserMissing) as caught:
        find_browser()
    assert str(caught.value) == f"{variable}={path} is not an executable file. Correct it or unset it"


def test_an_explicit_binary_that_prints_no_version_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("mychrome", "hello", folder="own")
    monkeypatch.setenv("CHROME_BINARY", str(path))
    with pytest.raises(BrowserMissing, match=rf"^CHROME_BINARY={path} did not print a version"):
        find_browser()


def test_a_mismatched_explicit_pair_is_an_error_that_shows_both(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    chrome, chromedriver = write("mychrome", CHROME_156), write("mydriver", DRIVER_99)
    monkeypatch.setenv("CHROME_BINARY", str(chrome))
    monkeypatch.setenv("CHROMEDRIVER", str(chromedriver))
    with pytest.raises(BrowserMissing) as caught:
        find_browser()
    assert str(caught.value) == (
        f"CHROMEDRIVER={chromedriver} (99.0.1.2) does not fit CHROME_BINARY: {chrome} (156.0.8078.79). The "
        "major versions must be equal. Unset CHROMEDRIVER, or run: apt-get install chromium chromium-driver "
        "(Debian)"
    )


def test_an_explicit_driver_that_fits_no_chrome_is_an_error_not_a_download(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("chromium", CHROME_156)
    monkeypatch.setenv("CHROMEDRIVER", str(write("mydriver", DRIVER_99)))
    with pytest.raises(BrowserMissing, match="does not fit the Chrome found"):
        find_browser()


def test_without_a_chrome_the_error_names_what_was_looked_for_and_the_fix(tmp_path: Path) -> None:
    with pytest.raises(BrowserMissing) as caught:
        find_browser()
    assert str(caught.value) == (
        "no Chrome: looked for chromium, chromium-browser, google-chrome, google-chrome-stable, chrome on "
        f"PATH and in {tmp_path / 'usual'}. Run: apt-get install chromium chromium-driver (Debian), or set "
        "CHROME_BINARY and CHROMEDRIVER"
    )


def test_a_chrome_that_hangs_at_its_version_is_passed_over(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "VERSION_SECONDS", 0.2)
    hanging = write("chromium", "")
    hanging.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    chrome = write("google-chrome", CHROME_156)
    write("chromedriver", DRIVER_156)
    assert find_browser().chrome == chrome


def test_the_pair_is_found_once_per_process(write: Write) -> None:
    chrome = write("chromium", CHROME_156)
    write("chromedriver", DRIVER_156)
    first = find_browser()
    chrome.unlink()
    assert find_browser() is first


def test_a_failure_is_not_remembered(write: Write) -> None:
    with pytest.raises(BrowserMissing):
        find_browser()
    write("chromium", CHROME_156)
    write("chromedriver", DRIVER_156)
    assert find_browser().version == "156.0.8078.79"


def test_without_webdriver_manager_the_error_names_the_extra(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("chromium", CHROME_156)
    real_import = builtins.__import__

    def import_without_manager(name: str, *rest: object) -> ModuleType:
        if name.startswith("webdriver_manager"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", import_without_manager)
    with pytest.raises(BrowserMissing, match=r"pip install 'recyclery\[browser\]'$"):
        find_browser()


def test_a_failed_download_names_its_cause_and_the_fix(write: Write) -> None:
    chrome = write("chromium", CHROME_156)
    write("chromedriver", DRIVER_99)
    with pytest.raises(BrowserMissing) as caught:
        find_browser()
    text = str(caught.value)
    assert text.startswith(f"no chromedriver 156 for {chrome} (156.0.8078.79): found ")
    assert "no network in this test: https://googlechromelabs.github.io/" in text
    assert text.endswith("Run: apt-get install chromium chromium-driver (Debian)")


class DownloadSite(http.server.ThreadingHTTPServer):
    """The Chrome for Testing site on a loopback port; `asked` lists the last parts of the paths asked for."""

    def __init__(self, version: str, driver_line: str) -> None:
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.asked: list[str] = []
        self.silent = False
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("chromedriver-linux64/chromedriver", script(driver_line))
        downloads = [
            {"platform": system, "url": "https://storage.googleapis.com/chromedriver.zip"}
            for system in ("linux64", "linux-arm64")
        ]
        versions = [{"version": version, "downloads": {"chromedriver": downloads}}]
        milestones = {version.split(".", maxsplit=1)[0]: {"version": version}}
        self.answers = {
            "latest-patch-versions-per-build.json": json.dumps({"builds": {}}).encode(),
            "latest-versions-per-milestone.json": json.dumps({"milestones": milestones}).encode(),
            "known-good-versions-with-downloads.json": json.dumps({"versions": versions}).encode(),
            "chromedriver.zip": archive.getvalue(),
        }

    def fetch(self, url: str, timeout: tuple[float, float]) -> requests.Response:
        """Stand in for requests.get: the same path, asked here."""
        return real_get(f"http://127.0.0.1:{self.server_port}{urlparse(url).path}", timeout=timeout)


class SiteHandler(http.server.BaseHTTPRequestHandler):
    server: DownloadSite

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked.append(name)
        if self.server.silent:
            self.rfile.read(1)  # Until the client gives up.
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.answers[name])

    def log_message(self, *_: object) -> None:
        pass


ALL_ROUTES = {
    "latest-patch-versions-per-build.json",
    "latest-versions-per-milestone.json",
    "known-good-versions-with-downloads.json",
    "chromedriver.zip",
}


@pytest.fixture
def open_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], DownloadSite]]:
    sites: list[DownloadSite] = []

    def open_one(driver_line: str) -> DownloadSite:
        site = DownloadSite("156.0.8078.99", driver_line)
        threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setattr("requests.get", site.fetch)
        sites.append(site)
        return site

    yield open_one
    for site in sites:
        site.shutdown()
        site.server_close()


OpenSite = Callable[[str], DownloadSite]


@pytest.mark.parametrize("product", ["Chromium", "Google Chrome"])
def test_a_missing_driver_is_downloaded_into_the_cache_folder(
    write: Write, open_site: OpenSite, tmp_path: Path, product: str
) -> None:
    chrome = write("chromium", f"{product} 156.0.8078.79")
    site = open_site(DRIVER_156)
    pair = find_browser()
    assert (pair.chrome, pair.version) == (chrome, "156.0.8078.79")
    assert pair.chromedriver.is_relative_to(tmp_path / "cache")
    assert set(site.asked) == ALL_ROUTES


def test_a_downloaded_driver_is_taken_from_the_cache_the_next_time(write: Write, open_site: OpenSite) -> None:
    write("chromium", CHROME_156)
    site = open_site(DRIVER_156)
    first = find_browser()
    site.asked.clear()
    find_browser.cache_clear()
    assert find_browser() == first
    assert site.asked == []


def test_a_cached_driver_is_still_taken_after_300_days(
    write: Write, open_site: OpenSite, tmp_path: Path
) -> None:
    write("chromium", CHROME_156)
    site = open_site(DRIVER_156)
    first = find_browser()
    index = tmp_path / "cache" / ".wdm" / "drivers.json"
    entries = json.loads(index.read_text())
    for entry in entries.values():
        entry["timestamp"] = (date.today() - timedelta(days=300)).strftime("%d/%m/%Y")
    index.write_text(json.dumps(entries))
    site.asked.clear()
    find_browser.cache_clear()
    assert find_browser() == first
    assert site.asked == []


def test_a_downloaded_driver_of_another_version_is_refused(write: Write, open_site: OpenSite) -> None:
    write("chromium", CHROME_156)
    open_site(DRIVER_99)
    with pytest.raises(BrowserMissing, match=r"the chromedriver downloaded for .* is .* \(99\.0\.1\.2\)"):
        find_browser()


def test_the_lock_of_a_killed_installer_is_removed(write: Write, open_site: OpenSite, tmp_path: Path) -> None:
    write("chromium", CHROME_156)
    open_site(DRIVER_156)
    lock = write_lock(tmp_path)
    assert find_browser().version == "156.0.8078.79"
    assert not lock.exists()


def write_lock(tmp_path: Path) -> Path:
    lock = tmp_path / "cache" / ".wdm" / ".wdm-lock-chromedriver-linux64"
    if platform.machine() == "aarch64":
        lock = lock.with_name(".wdm-lock-chromedriver-linux-arm64")
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_the_lock_of_a_living_installer_is_waited_for(
    write: Write, open_site: OpenSite, tmp_path: Path
) -> None:
    write("chromium", CHROME_156)
    site = open_site(DRIVER_156)
    lock = write_lock(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        with lock.open():
            search = pool.submit(find_browser)
            with pytest.raises(TimeoutError):
                search.result(timeout=1)
            assert "chromedriver.zip" not in site.asked
            lock.unlink()
        assert search.result(timeout=10).version == "156.0.8078.79"


def test_a_torn_index_is_dropped(write: Write, open_site: OpenSite, tmp_path: Path) -> None:
    write("chromium", CHROME_156)
    open_site(DRIVER_156)
    index = tmp_path / "cache" / ".wdm" / "drivers.json"
    index.parent.mkdir(parents=True)
    index.write_text('{"linux64_chromedriver_156')
    assert find_browser().version == "156.0.8078.79"


def test_processes_that_search_at_once_download_once(write: Write, open_site: OpenSite, tmp_path: Path) -> None:
    write("chromium", CHROME_156)
    site = open_site(DRIVER_156)
    children = [os.fork() for _ in range(3) if os.getpid() == OWNER]
    if os.getpid() != OWNER:
        try:
            find_browser()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert site.asked.count("chromedriver.zip") == 1


def test_a_silent_download_site_ends_in_an_error(
    write: Write, open_site: OpenSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "READ_SECONDS", 0.2)
    write("chromium", CHROME_156)
    open_site(DRIVER_156).silent = True
    began = time.monotonic()
    with pytest.raises(BrowserMissing, match=r"downloading one failed: .*[Rr]ead timed out"):
        find_browser()
    assert time.monotonic() - began < 5
