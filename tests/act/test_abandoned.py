"""What a dead Chrome left goes; what is a living one's, a young one's or somebody else's stays."""

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery.act.cleanup import YOUNG_FILE_SECONDS, remove_stale_files


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of the test's own, with a short name."""
    with tempfile.TemporaryDirectory(prefix="rcs-", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def make_folder(temporary: Path, age_seconds: float = 2 * YOUNG_FILE_SECONDS) -> tuple[Path, socket.socket]:
    """Make what a Chrome makes; return it with its listening socket."""
    folder = Path(tempfile.mkdtemp(prefix="org.chromium.Chromium.", dir=temporary))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "SingletonSocket"))
    listener.listen()
    (folder / "SingletonCookie").symlink_to("12345")
    age(folder / "SingletonSocket", age_seconds)
    return folder, listener


def make_profile(temporary: Path, target: Path, age_seconds: float = 2 * YOUNG_FILE_SECONDS) -> Path:
    """Make what chromedriver makes for a session, linking to a Chrome's socket."""
    profile = Path(tempfile.mkdtemp(prefix="org.chromium.Chromium.scoped_dir.", dir=temporary))
    (profile / "Default").mkdir()
    link = profile / "SingletonSocket"
    link.symlink_to(target / "SingletonSocket")
    age(link, age_seconds)
    return profile


def age(path: Path, seconds: float) -> None:
    """Have it look so many seconds old."""
    made = time.time() - seconds
    os.utime(path, (made, made), follow_symlinks=False)


def test_the_folder_of_a_dead_chrome_goes(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    listener.close()
    assert remove_stale_files() == [folder]
    assert not folder.exists()


def test_the_folder_of_a_living_chrome_stays(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    with listener:
        assert remove_stale_files() == []
        assert (folder / "SingletonSocket").is_socket()


def test_one_in_another_network_namespace_is_asked(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, listener = make_folder(temporary)
    monkeypatch.setattr("recyclery.act.cleanup.read_proc_file", lambda _: b"")
    with listener:
        assert remove_stale_files() == []
        assert folder.exists()


def test_a_folder_made_just_now_stays(temporary: Path) -> None:
    _, listener = make_folder(temporary, age_seconds=0)
    listener.close()
    assert remove_stale_files() == []


def test_a_folder_with_something_else_in_it_stays(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    listener.close()
    (folder / "note").write_text("a person's")
    assert remove_stale_files() == []
    assert (folder / "SingletonSocket").is_socket()


def test_a_folder_without_a_socket_stays(temporary: Path) -> None:
    Path(tempfile.mkdtemp(prefix="org.chromium.Chromium.", dir=temporary))
    assert remove_stale_files() == []


def test_the_profile_of_a_dead_chrome_goes_with_its_socket(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    profile = make_profile(temporary, folder)
    listener.close()
    assert sorted(remove_stale_files()) == sorted([folder, profile])
    assert list(temporary.iterdir()) == []


def test_a_profile_whose_socket_is_gone_goes(temporary: Path) -> None:
    profile = make_profile(temporary, temporary / "org.chromium.Chromium.gone")
    assert remove_stale_files() == [profile]


def test_the_profile_of_a_living_chrome_stays(temporary: Path) -> None:
    folder, listener = make_folder(temporary)
    profile = make_profile(temporary, folder)
    with listener:
        assert remove_stale_files() == []
        assert (profile / "Default").is_dir()


def test_a_profile_that_a_process_still_names_stays(temporary: Path) -> None:
    profile = make_profile(temporary, temporary / "org.chromium.Chromium.gone")
    with subprocess.Popen(["sh", "-c", "read line", f"--user-data-dir={profile}"], stdin=subprocess.PIPE):
        assert remove_stale_files() == []
    assert remove_stale_files() == [profile]


def test_a_profile_that_was_opened_just_now_stays(temporary: Path) -> None:
    make_profile(temporary, temporary / "org.chromium.Chromium.gone", age_seconds=0)
    assert remove_stale_files() == []


def test_a_profile_that_a_person_named_stays(temporary: Path) -> None:
    profile = make_profile(temporary, temporary / "org.chromium.Chromium.gone")
    own = profile.rename(temporary / "my-profile")
    assert remove_stale_files() == []
    assert own.exists()
