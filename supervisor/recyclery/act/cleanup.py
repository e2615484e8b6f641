"""Removes the throw-away files of dead browsers: what they named, had open or mapped, and nobody else uses.

A sweep every SWEEP_SECONDS also removes those of browsers that nobody observed, by their dead sockets.
"""

import asyncio
import logging
import os
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recyclery.observe.browser_files import SOCKET_LINK, find_named_folders, find_throwaway, split_command
from recyclery.observe.processes import read_proc_file
from recyclery.observe.snapshot import LeftoverFiles

# The kernel appends this to the name of a deleted file.
DELETED_MARK = " (deleted)"


def find_session_files(pids: Iterable[int]) -> set[Path]:
    """Return the throw-away folders and files that these living processes name, have open or have mapped."""
    found = set()
    for pid in pids:
        found |= set(find_named_folders(split_command(read_proc_file(f"/proc/{pid}/cmdline"))))
        for name in (*open_files(pid), *mapped_files(pid)):
            path = None if name.endswith(DELETED_MARK) else find_throwaway(Path(name))
            if path is not None:
                found.add(path)
    return found


def open_files(pid: int) -> Iterator[str]:
    """Yield the names of a process's open files; none without permission."""
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)  # noqa: PTH208  # a Path for each costs ten times as much
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            yield os.readlink(f"{folder}/{entry}")  # noqa: PTH115


def mapped_files(pid: int) -> Iterator[str]:
    """Yield the names of a process's mapped files."""
    for line in read_proc_file(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6:
            yield os.fsdecode(fields[5])


def remove_all(paths: Collection[Path]) -> list[Path]:
    """Remove these paths except those that a living process uses; return the removed ones."""
    there = [path for path in paths if os.path.lexists(path)]
    used = find_used(there) if there else set()
    return [path for path in there if path not in used and remove_path(path)]


def remove_leftovers(leftover_files: Iterable[LeftoverFiles]) -> list[Path]:
    """Remove dead browsers' files; of those that are only guessed to be theirs, the empty folders."""
    by_folder = {left.folder: left for left in leftover_files}
    guessed = {folder for folder, left in by_folder.items() if left.guessed}
    removed = remove_all(by_folder.keys() - guessed)
    for folder in guessed:
        with suppress(OSError):
            folder.rmdir()
            removed.append(folder)
    return removed


def find_used(paths: Collection[Path]) -> set[Path]:
    """Return the paths that any process names, has open, has mapped or listens in."""
    texts = {path: os.fsencode(path) for path in paths}
    listening = read_proc_file("/proc/net/unix")
    used = {path for path, text in texts.items() if text in listening}
    # A folder is not mapped, and its mapped files are also open.
    files = [path for path in paths if not path.is_dir()]
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit():
            continue
        pid = int(entry)
        command = read_proc_file(f"/proc/{pid}/cmdline")
        maps = read_proc_file(f"/proc/{pid}/maps") if files else b""
        opened = "\0".join(("", *open_files(pid), ""))
        for path, text in texts.items():
            name = f"\0{path}"
            if text in command or text in maps or f"{name}/" in opened or f"{name}\0" in opened:
                used.add(path)
    return used


def remove_path(path: Path) -> bool:
    """Remove a file or a folder with its content; return whether it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)


# Chrome's folders for one socket, hidden or not, and chromedriver's for one session.
SOCKET_FOLDERS = ("org.chromium.Chromium.", "com.google.Chrome.")
PROFILES = ("org.chromium.Chromium.scoped_dir.", "com.google.Chrome.scoped_dir.", "scoped_dir")
SOCKET_ENTRIES = {SOCKET_LINK, "SingletonCookie"}
# A socket is made, bound and listened to within milliseconds; chromedriver removes a profile soon after a quit.
YOUNG_FILE_SECONDS = 10.0


def remove_stale_files() -> list[Path]:
    """Remove the throw-away profiles and socket folders whose socket nobody listens to; return them."""
    listed = read_proc_file("/proc/net/unix")
    folders = list(Path(tempfile.gettempdir()).iterdir())
    profiles = [path for path in folders if path.name.startswith(PROFILES) and is_stale_profile(path, listed)]
    named = (path for path in folders if path.name.removeprefix(".").startswith(SOCKET_FOLDERS))
    sockets = [path for path in named if is_stale_socket(path, listed)]
    return [*remove_all(profiles), *(path for path in sockets if remove_socket(path))]


def is_stale_profile(profile: Path, listed: bytes) -> bool:
    """Return whether a folder is our user's profile of a Chrome that is dead and did not quit."""
    link = profile / SOCKET_LINK
    return is_settled(profile, link) and link.is_symlink() and is_dead(link.readlink(), listed)


def is_stale_socket(folder: Path, listed: bytes) -> bool:
    """Return whether our user's folder contains a dead socket of Chrome's, and nothing else."""
    path = folder / SOCKET_LINK
    return (
        is_settled(folder, path)
        and stat.S_ISSOCK(path.lstat().st_mode)
        and set(os.listdir(folder)) <= SOCKET_ENTRIES  # noqa: PTH208
        and is_dead(path, listed)
    )


def is_settled(folder: Path, entry: Path) -> bool:
    """Return whether a folder is our user's, and this entry of it exists and is not young."""
    try:
        about = folder.lstat()
        made = entry.lstat().st_mtime
    except OSError:
        return False
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    return ours and time.time() - made > YOUNG_FILE_SECONDS


def is_dead(path: Path, listed: bytes) -> bool:
    """Return whether nobody listens to a socket, or it is gone."""
    # The list is that of our network namespace: a socket of another one has to be connected to.
    if os.fsencode(path) in listed:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except OSError as error:
            return isinstance(error, ConnectionRefusedError | FileNotFoundError)
    return False


def remove_socket(folder: Path) -> bool:
    """Remove a stale socket's folder; return whether it is gone."""
    for name in SOCKET_ENTRIES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)


log = logging.getLogger("recyclery")

FILE_SWEEP_SECONDS = 10.0


class Sweeper:
    """Sweeps in a thread, so that a tick does not wait: every SWEEP_SECONDS and when a child has exited."""

    def __init__(self) -> None:
        self._due = 0.0
        self._sweeping: asyncio.Task[None] | None = None

    def hurry(self) -> None:
        """Make the next sweep due now."""
        self._due = 0.0

    def begin(self, at: float) -> None:
        """Start a sweep if one is due and none is running."""
        if at >= self._due and (self._sweeping is None or self._sweeping.done()):
            self._due = at + FILE_SWEEP_SECONDS
            self._sweeping = asyncio.create_task(sweep_files())


async def sweep_files() -> None:
    """Remove profiles whose owner no longer holds their lock, and stale files."""
    # Imported lazily: only sweeps need it.
    from recyclery_worker.browser.profiles import sweep_profiles  # noqa: PLC0415

    removed = await asyncio.to_thread(lambda: [*sweep_profiles(), *remove_stale_files()])
    if removed:
        log.debug("swept %s", ", ".join(map(str, removed)))
