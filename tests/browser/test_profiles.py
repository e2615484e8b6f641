"""Profile folders: whose owner is dead they go, all others stay."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recyclery_worker.browser.profiles import (
    LOCK_NAME,
    PROFILE_PREFIX,
    UNLOCKED_SECONDS,
    VARIABLE,
    end_processes,
    make_profile,
    sweep_profiles,
)
from support.browsers import defunct_children, wait_until

OWNER = """
import sys
from recyclery_worker.browser.profiles import make_profile
print(make_profile().path, flush=True)
sys.stdin.read()
"""


def dead_owners_folder() -> Path:
    made = subprocess.run([sys.executable, "-c", OWNER], input="", capture_output=True, text=True, check=True)
    return Path(made.stdout.strip())


def test_a_dead_owners_folder_is_removed_with_all_that_is_in_it() -> None:
    folder = dead_owners_folder()
    (folder / "Default").mkdir()
    (folder / "Default" / "Cookies").write_bytes(b"x")
    assert sweep_profiles() == [folder]
    assert not folder.exists()


def test_a_living_owners_folder_stays() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        folder = Path(owner.stdout.readline().strip())
        assert sweep_profiles() == []
        assert folder.exists()
        owner.kill()
        owner.wait()
        assert sweep_profiles() == [folder]


def test_a_folder_of_our_own_stays_until_we_remove_it() -> None:
    profile = make_profile()
    assert sweep_profiles() == []
    profile.end(set())
    assert not profile.path.exists()


def test_a_dead_owners_folder_stays_while_a_process_names_it() -> None:
    folder = dead_owners_folder()
    with subprocess.Popen(["sleep", "60"], env={**os.environ, VARIABLE: str(folder)}) as browser:
        assert sweep_profiles() == []
        browser.kill()
    assert sweep_profiles() == [folder]


def test_a_folder_without_a_lock_goes_only_when_it_is_old(private_tmp: Path) -> None:
    folder = private_tmp / f"{PROFILE_PREFIX}new"
    folder.mkdir()
    assert sweep_profiles() == []
    old = folder.stat().st_mtime - UNLOCKED_SECONDS - 1
    os.utime(folder, (old, old))
    assert sweep_profiles() == [folder]


@pytest.mark.parametrize("name", ["someones-profile", "scoped_dir"])
def test_folders_that_others_made_are_left_alone(private_tmp: Path, name: str) -> None:
    (private_tmp / name).mkdir()
    (private_tmp / name / LOCK_NAME).touch()
    assert sweep_profiles() == []
    assert (private_tmp / name / LOCK_NAME).exists()


def test_a_link_in_the_place_of_a_lock_is_not_followed(private_tmp: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").touch()
    (private_tmp / f"{PROFILE_PREFIX}x").mkdir()
    (private_tmp / f"{PROFILE_PREFIX}x" / LOCK_NAME).symlink_to(tmp_path / "theirs")
    assert sweep_profiles() == []


def test_a_process_that_bears_the_profiles_mark_is_killed_and_reaped(tmp_path: Path) -> None:
    child = subprocess.Popen(["sleep", "600"], env={**os.environ, VARIABLE: str(tmp_path)})
    end_processes(tmp_path, set())
    assert defunct_children() == []
    assert wait_until(lambda: not Path(f"/proc/{child.pid}").exists(), 1)
    child.wait()  # Only so that Popen knows.
