"""A tuning's folder is gone with it, or with the next tuning."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from recyclery.tune.testbed import UNLOCKED_FOLDER_SECONDS, remove_abandoned, temporary_folder

OPEN = """
import sys, time
from pathlib import Path
from recyclery.tune.testbed import temporary_folder
with temporary_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(600)
"""


def age(folder: Path) -> None:
    """Make a folder look as if it had been made long ago."""
    long_ago = time.time() - 2 * UNLOCKED_FOLDER_SECONDS
    os.utime(folder, (long_ago, long_ago))


def test_a_folder_is_there_for_its_tuning_and_gone_after_it(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as folder:
        (folder / "0").mkdir()
        assert folder.is_dir()
    assert not folder.exists()


def test_the_folder_of_a_killed_tuning_is_removed_and_that_of_one_that_runs_is_not(
    tmp_path: Path,
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OPEN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        age(folder)
        remove_abandoned(tmp_path)
        assert folder.is_dir()
        process.send_signal(signal.SIGKILL)
        process.wait()
    remove_abandoned(tmp_path)
    assert not folder.exists()


def test_a_folder_that_was_just_made_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "rt-new"
    folder.mkdir()
    remove_abandoned(tmp_path)
    assert folder.is_dir()


def test_what_is_no_folder_is_left_alone(tmp_path: Path) -> None:
    target, link, file = tmp_path / "target", tmp_path / "rt-link", tmp_path / "rt-file"
    target.mkdir()
    link.symlink_to(target)
    file.touch()
    age(target)
    age(file)
    remove_abandoned(tmp_path)
    assert (target.is_dir(), link.is_symlink(), file.is_file()) == (True, True, True)
