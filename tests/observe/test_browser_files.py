"""What browsers have on disk, and when nobody has it any more."""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from recyclery.observe.browser_files import RETRY_REMOVAL_SECONDS, BrowserFiles
from recyclery.observe.snapshot import Process
from recyclery_worker.link import now
from support.false_browsers import make_folder, running_as

INIT = 1
DRIVEN = "--test-type=webdriver"


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def profile(temp: Path) -> Path:
    return make_folder(temp / "org.chromium.Chromium.scoped_dir.a")


def left(belongings: BrowserFiles, *processes: Process, ours: bool = True) -> list[Path]:
    """Look at these processes; return the folders that are left."""
    owned = {process.pid for process in processes} if ours else ()
    return [remains.folder for remains in belongings.update(processes, owned, now())]


def date_as(folder: Path, process: Process) -> None:
    """Have a folder look as if it was made when a process started."""
    started = time.time() - now() + process.started
    os.utime(folder, (started, started))


def test_a_folder_is_left_when_the_last_process_that_named_it_is_gone(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    argument = f"--user-data-dir={profile}"
    with running_as("chromium", argument) as browser, running_as("chromium", argument) as renderer:
        assert left(belongings, browser, renderer) == []
        assert left(belongings, renderer) == []
    assert left(belongings, replace(renderer, state="Z")) == [profile]


@pytest.mark.parametrize("word", ["-profile", "--profile"])
def test_firefoxs_profile_is_left_when_the_firefox_that_named_it_is_gone(temp: Path, word: str) -> None:
    belongings, made = BrowserFiles({INIT}), make_folder(temp / "rust_mozprofileAbc123")
    with running_as("firefox-esr", word, str(made)) as browser:
        assert left(belongings, browser) == []
    assert left(belongings, replace(browser, state="Z")) == [made]


def test_a_profile_that_a_user_chose_for_firefox_is_never_left(temp: Path) -> None:
    belongings, chosen = BrowserFiles({INIT}), make_folder(temp / "my-profile")
    with running_as("firefox-esr", "--profile", str(chosen)) as browser:
        assert left(belongings, browser) == []
    assert left(belongings, replace(browser, state="Z")) == []


def test_it_is_left_since_it_was_first_seen_so(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={profile}") as browser:
        belongings.update([browser], {browser.pid}, 100.0)
    first = belongings.update([], (), 101.0)
    again = belongings.update([], (), 102.0)
    assert ([remains.since for remains in first], again) == ([101.0], first)


def test_a_folder_that_the_browser_removed_itself_is_not_left(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={profile}") as browser:
        left(belongings, browser)
    (profile / "Default").rmdir()
    profile.rmdir()
    assert left(belongings) == []


def test_a_strangers_folder_is_never_left(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={profile}") as browser:
        left(belongings, browser, ours=False)
    assert left(belongings) == []


def test_a_folder_that_a_stranger_names_too_is_kept_for_it(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={profile}") as browser:
        with running_as("chromium", f"--user-data-dir={profile}") as stranger:
            belongings.update([browser, stranger], {browser.pid}, now())
            assert left(belongings, stranger, ours=False) == []
        assert left(belongings) == [profile]


def test_a_profile_that_a_person_chose_is_never_left_but_its_sockets_folder_is(temp: Path) -> None:
    chosen = make_folder(temp / "mine")
    socket_folder = make_folder(temp / "org.chromium.Chromium.b")
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={chosen}") as browser:
        assert left(belongings, browser) == []
        # Chrome makes the link a while after its start.
        (chosen / "SingletonSocket").symlink_to(socket_folder / "SingletonSocket")
        assert left(belongings, browser) == []
    assert left(belongings) == [socket_folder]


def test_a_folder_of_our_own_browser_is_left_to_its_owners_lock(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={make_folder(temp / 'recyclery-profile-a')}") as browser:
        left(belongings, browser)
    assert left(belongings) == []


def test_chromedrivers_empty_folder_is_left_as_a_guess_when_it_is_gone_too(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromedriver") as driver:
        with running_as("chromium", DRIVEN) as browser:
            guessed = temp / "org.chromium.Chromium.scoped_dir.b"
            guessed.mkdir()
            date_as(guessed, browser)
            assert left(belongings, driver, replace(browser, parent=driver.pid)) == []
        assert left(belongings, driver) == []
    (remains,) = belongings.update([], (), now())
    assert (remains.folder, remains.guessed) == (guessed, True)


def test_a_folder_made_at_another_time_or_with_something_in_it_is_no_guess(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    old, full = temp / "scoped_dir1", make_folder(temp / "scoped_dir2")
    old.mkdir()
    os.utime(old, (0, 1000))
    with running_as("chromium", DRIVEN) as browser:
        date_as(full, browser)
        left(belongings, browser)
    assert left(belongings) == []
    assert full.exists()


def test_a_profile_tells_which_chromedriver_would_have_removed_it(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromedriver") as driver:
        with running_as("chromium", DRIVEN, f"--user-data-dir={profile}") as browser:
            left(belongings, driver, replace(browser, parent=driver.pid))
        (remains,) = belongings.update([driver], {driver.pid}, now())
    assert (remains.folder, remains.drivers) == (profile, frozenset({driver.key}))


def test_a_browser_that_chromedriver_started_is_driverless_once_init_has_it(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    with (
        running_as("chromedriver") as driver,
        running_as("chromium", DRIVEN) as browser,
        running_as("chromium", DRIVEN, "--type=zygote") as zygote,
    ):
        start = browser.started
        driven = replace(browser, parent=driver.pid)
        belongings.update([driver, driven, zygote], (), start)
        assert belongings.orphaned_browsers == {}
        alone = replace(browser, parent=INIT)
        belongings.update([alone, replace(zygote, parent=INIT)], (), start + 1)
        belongings.update([alone, replace(zygote, parent=INIT)], (), start + 2)
        assert belongings.orphaned_browsers == {browser.key: start + 1}
        belongings.update([], (), start + 3)
        assert belongings.orphaned_browsers == {}


def test_a_handler_that_looks_like_its_browser_until_its_exec_is_not_driverless(
    temp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = [f"chromium\0{DRIVEN}".encode(), b"chrome_crashpad_handler\0--monitor-self"]
    monkeypatch.setattr("recyclery.observe.browser_files.read_proc_file", lambda _: commands.pop(0))
    belongings = BrowserFiles({INIT})
    with running_as("chromium") as handler:
        forked = replace(handler, parent=INIT)
        belongings.update([forked], (), handler.started)
        assert belongings.orphaned_browsers == {}
        belongings.update([forked], (), handler.started + 3)
    assert belongings.orphaned_browsers == {}


def test_one_that_was_never_seen_under_its_chromedriver_is_driverless_when_it_has_settled(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", DRIVEN) as browser:
        alone = replace(browser, parent=INIT)
        belongings.update([alone], (), browser.started + 1)
        assert belongings.orphaned_browsers == {}
        belongings.update([alone], (), browser.started + 3)
    assert belongings.orphaned_browsers == {browser.key: browser.started + 3}


def test_a_browser_that_a_person_started_apart_is_not_driverless(temp: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", "--remote-debugging-port=9222") as browser:
        belongings.update([replace(browser, parent=INIT)], (), now())
    assert belongings.orphaned_browsers == {}


def test_a_process_is_read_no_more_once_it_has_settled(profile: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []

    def read(path: str) -> bytes:
        reads.append(path)
        return b""

    monkeypatch.setattr("recyclery.observe.browser_files.read_proc_file", read)
    belongings = BrowserFiles({INIT})
    with running_as("chromium") as browser:
        for seconds in (0.5, 1.5, 2.5, 3.5, 4.5):
            belongings.update([browser], (), browser.started + seconds)
    assert len(reads) == 3


def test_a_folder_that_could_not_be_removed_is_told_again_after_a_while(profile: Path) -> None:
    belongings = BrowserFiles({INIT})
    with running_as("chromium", f"--user-data-dir={profile}") as browser:
        belongings.update([browser], {browser.pid}, 100.0)
    belongings.update([], (), 101.0)
    belongings.postpone_removal([profile], 102.0)
    assert belongings.update([], (), 102.0 + RETRY_REMOVAL_SECONDS - 1) == ()
    (remains,) = belongings.update([], (), 102.0 + RETRY_REMOVAL_SECONDS)
    assert remains.folder == profile
