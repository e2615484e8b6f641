"""Removing what a browser leaves on disk, and nothing that anybody else uses."""

import asyncio
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recyclery.act.cleanup import find_session_files, remove_all, remove_leftovers
from recyclery.act.kill import kill_processes
from recyclery.observe.snapshot import LeftoverFiles, Process
from support.false_browsers import make_folder, running_as

# The path must not stand in the command: that would name it too.
OPENS = "import os;f=open(os.environ['OPENED'],'w+b')"
# A mapping of Python's keeps a descriptor too: all are closed.
MAPS = f"import mmap;{OPENS};f.truncate(4096);m=mmap.mmap(f.fileno(),4096);os.closerange(3,100)"


@contextmanager
def opening(name: str, path: Path, code: str) -> Iterator[Process]:
    """Run a process of that name that has a file open, or mapped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENED", str(path))
        with running_as(name, code=code) as process:
            yield process


@pytest.fixture
def temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temp folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def shared() -> Iterator[Path]:
    """A name in /dev/shm that nobody else has."""
    path = Path("/dev/shm", f".org.chromium.Chromium.{secrets.token_hex(4)}")
    yield path
    path.unlink(missing_ok=True)


@pytest.mark.parametrize("code", [OPENS, MAPS])
def test_shared_memory_that_a_killed_browser_has_open_or_mapped_goes_with_it(shared: Path, code: str) -> None:
    with opening("chromium", shared, code) as browser:
        assert shared.exists()
        assert asyncio.run(kill_processes([browser])) == []
    assert not shared.exists()


@pytest.mark.parametrize("code", [OPENS, MAPS])
def test_shared_memory_that_another_process_has_too_stays(shared: Path, code: str) -> None:
    with (
        opening("python-other", shared, code),
        opening("chromium", shared, OPENS) as browser,
    ):
        asyncio.run(kill_processes([browser]))
        assert shared.exists()


def test_a_folder_in_which_a_killed_browser_has_a_file_open_goes_with_it(temp: Path) -> None:
    folder = make_folder(temp / "scoped_dir1")
    with opening("chromium", folder / "Default" / "Cookies", OPENS) as browser:
        asyncio.run(kill_processes([browser]))
    assert not folder.exists()


def test_a_file_of_a_persons_own_that_a_killed_browser_has_open_stays(temp: Path) -> None:
    with opening("chromium", temp / "report.csv", OPENS) as browser:
        asyncio.run(kill_processes([browser]))
    assert (temp / "report.csv").exists()


def test_a_file_that_has_no_name_any_more_is_no_remains(temp: Path) -> None:
    path = temp / ".org.chromium.Chromium.a"
    with opening("chromium", path, OPENS) as browser:
        assert find_session_files([browser.pid]) == {path}
        path.unlink()
        assert find_session_files([browser.pid]) == set()


def test_a_folder_that_a_living_process_names_stays(temp: Path) -> None:
    folder = make_folder(temp / "scoped_dir1")
    with running_as("chromium", f"--user-data-dir={folder}"):
        assert remove_all([folder]) == []
    assert remove_all([folder]) == [folder]


def test_a_folder_in_which_a_living_process_has_a_file_open_stays(temp: Path) -> None:
    folder = make_folder(temp / "scoped_dir1")
    with opening("chromium", folder / "Default" / "Cookies", OPENS):
        assert remove_all([folder]) == []


def test_a_folder_in_which_somebody_listens_stays() -> None:
    with tempfile.TemporaryDirectory(prefix="org.chromium.") as name, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{name}/SingletonSocket")
        assert remove_all([Path(name)]) == []
        listener.close()
        assert remove_all([Path(name)]) == [Path(name)]
        Path(name).mkdir()


def test_a_guess_is_removed_only_while_it_is_empty(temp: Path) -> None:
    empty, full = temp / "scoped_dir1", make_folder(temp / "scoped_dir2")
    empty.mkdir()
    guesses = [LeftoverFiles(folder, 1.0, guessed=True) for folder in (empty, full)]
    assert remove_leftovers(guesses) == [empty]
    assert full.exists()


def test_what_is_gone_already_is_not_told_as_removed(temp: Path) -> None:
    assert remove_leftovers([LeftoverFiles(temp / "scoped_dir1", 1.0)]) == []
