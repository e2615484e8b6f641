"""Temporary profile folders: each is locked by its owner while that lives, and removed when it is dead.

Standard library only, as the governor uses this too.
"""

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

PROFILE_PREFIX = "recyclery-profile-"
LOCK_NAME = "owner.lock"
VARIABLE = "RECYCLERY_PROFILE"  # In the environment of everything started for a profile: the folder's path
KILL_SECONDS = 5.0
UNLOCKED_SECONDS = 60.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Profile:
    """A folder, and the descriptor of its lock, which no other program inherits."""

    path: Path
    lock: int

    def end(self, children: set[int]) -> None:
        """Kill what is left of its processes, reap our own, `children` (PIDs) too, and remove the folder."""
        try:
            end_processes(self.path, children)
        finally:
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.close(self.lock)


def make_profile() -> Profile:
    """Create a profile folder in the temporary folder; raises OSError."""
    path = Path(tempfile.mkdtemp(prefix=PROFILE_PREFIX))
    try:
        lock = os.open(path / LOCK_NAME, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return Profile(path, lock)


def sweep_profiles() -> list[Path]:
    """Remove the folders whose owners are gone and that no process uses; return them."""
    # A lock ends with its holder, whatever killed that and whichever PID namespace it was in.
    return [path for path in Path(tempfile.gettempdir()).glob(f"{PROFILE_PREFIX}*") if sweep_profile(path)]


def sweep_profile(path: Path) -> bool:
    """Remove one folder if nobody owns it; return whether it is gone."""
    with contextlib.suppress(OSError):
        try:
            lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            # A younger one may be in the making.
            return time.time() - path.lstat().st_mtime > UNLOCKED_SECONDS and remove_unused(path)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return remove_unused(path)
        finally:
            os.close(lock)
    return False


def remove_unused(path: Path) -> bool:
    if list_profile_processes(path):
        return False
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def list_profile_processes(profile: Path) -> set[int]:
    """Find the live processes (PIDs) of this profile's session in /proc, in 3 to 10 ms."""
    # Chrome overwrites argv in some processes and environ in others: only together they find all. The crashpad
    # handlers leave the process tree, so descent would miss them.
    marks = {"environ": f"{VARIABLE}={profile}", "cmdline": f"--user-data-dir={profile}"}
    found: set[int] = set()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        for name, mark in marks.items():
            with contextlib.suppress(OSError):
                if os.fsencode(mark) in (folder / name).read_bytes():
                    found.add(int(folder.name))
    return found


def end_processes(profile: Path, children: set[int]) -> None:
    deadline = time.monotonic() + KILL_SECONDS
    unreaped = set(children)
    while (found := list_profile_processes(profile)) or unreaped:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        unreaped = {pid for pid in unreaped | found if not collect_exit(pid)}
        if time.monotonic() > deadline:
            logger.warning("processes %s of %s outlived SIGKILL", sorted(found | unreaped), profile)
            return
        time.sleep(0.02)


def collect_exit(pid: int) -> bool:
    """Return whether `pid` needs no reaping any more: it was reaped, or is not our child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
