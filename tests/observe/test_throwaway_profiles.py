"""Which folders are thrown away with a browser, and which a person chose."""

import os
import tempfile
from pathlib import Path

import pytest

from recyclery.observe.browser_files import find_named_folders, find_throwaway, split_command

TEMP = Path(tempfile.gettempdir())


@pytest.mark.parametrize(
    "name",
    [
        "org.chromium.Chromium.scoped_dir.a1",
        ".org.chromium.Chromium.a1",
        "com.google.Chrome.a1",
        ".com.google.Chrome.a1",
        "scoped_dir12_34",
        "recyclery-profile-a1",
    ],
)
def test_a_folder_of_chromes_own_naming_is_thrown_away_whole(name: str) -> None:
    assert find_throwaway(TEMP / name / "Default" / "Cookies") == TEMP / name
    assert find_throwaway(TEMP / name) == TEMP / name


def test_chromes_files_in_shared_memory_are_thrown_away_too() -> None:
    path = Path("/dev/shm/.org.chromium.Chromium.a1")
    assert find_throwaway(path) == path


@pytest.mark.parametrize(
    "path",
    [
        TEMP,
        TEMP / "mine",
        TEMP / "mine" / "scoped_dir1",
        TEMP / "scoped_dir1" / ".." / "mine",
        Path("/dev/shm"),
        Path("/dev/shm/mine"),
        Path("/home/me/.config/chromium"),
        Path("/home/me/scoped_dir1"),
        Path("scoped_dir1"),
        Path(f"{TEMP}x/scoped_dir1"),
    ],
)
def test_what_a_person_chose_is_none(path: Path) -> None:
    assert find_throwaway(path) is None


def test_a_command_names_its_profile_and_its_crash_reports_whatever_stands_between_the_words() -> None:
    named = [TEMP / "scoped_dir1", TEMP / "scoped_dir2"]
    text = f"chrome --user-data-dir={named[0]} --x\0--database={named[1]}/Crash\0--user-data-dir=/home/me"
    assert list(find_named_folders(split_command(os.fsencode(text)))) == named


def test_the_folder_of_a_profiles_socket_is_named_too_whoever_chose_the_profile(tmp_path: Path) -> None:
    (tmp_path / "SingletonSocket").symlink_to(TEMP / "org.chromium.Chromium.a1" / "SingletonSocket")
    assert list(find_named_folders([f"--user-data-dir={tmp_path}"])) == [TEMP / "org.chromium.Chromium.a1"]


def test_a_link_to_elsewhere_names_nothing(tmp_path: Path) -> None:
    (tmp_path / "SingletonSocket").symlink_to("/home/me/SingletonSocket")
    assert list(find_named_folders([f"--user-data-dir={tmp_path}"])) == []
