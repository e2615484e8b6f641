"""Removes what browsers leave on disk: what they name, have open or have mapped, and nobody else uses."""

from __future__ import annotations

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
from recyclery.observe.processes import read_file
from recyclery.observe.snapshot import LeftoverFiles

# What the kernel says after the name of a file that has none any more.
DELETED_MARK = " (deleted)"


def find_session_files(pids: Iterable[int]) -> set[Path]:
    """Return the throw-away folders and files that these living processes name, have open or have mapped."""
    found = set()
    for pid in pids:
        found |= set(find_named_folders(split_command(read_file(f"/proc/{pid}/cmdline"))))
        for name in (*open_files(pid), *mapped_files(pid)):
            path = None if name.endswith(DELETED_MARK) else find_throwaway(Path(name))
            if path is not None:
                found.add(path)
    return found


def open_files(pid: int) -> Iterator[str]:
    """Yield the names of what a process has open; of none that is not ours to look at."""
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)  # noqa: PTH208  # a Path for each costs ten times as much
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            yield os.readlink(f"{folder}/{entry}")  # noqa: PTH115


def mapped_files(pid: int) -> Iterator[str]:
    """Yield the names of the files that a process has mapped."""
    for line in read_file(f"/proc/{pid}/maps").splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6:
            yield os.fsdecode(fields[5])


def remove_all(paths: Collection[Path]) -> list[Path]:
    """Remove these, but for what a living process uses; return what was removed."""
    there = [path for path in paths if os.path.lexists(path)]
    used = find_used(there) if there else set()
    return [path for path in there if path not in used and remove_path(path)]


def remove_leftovers(remains: Iterable[LeftoverFiles]) -> list[Path]:
    """Remove what browsers long gone have left; of what is only guessed to be theirs, the empty folders."""
    by_folder = {left.folder: left for left in remains}
    guessed = {folder for folder, left in by_folder.items() if left.guessed}
    removed = remove_all(by_folder.keys() - guessed)
    for folder in guessed:
        with suppress(OSError):
            folder.rmdir()
            removed.append(folder)
    return removed


def find_used(paths: Collection[Path]) -> set[Path]:
    """Return those that a process names, has open, has mapped or listens in, be it a person's."""
    texts = {path: os.fsencode(path) for path in paths}
    listening = read_file("/proc/net/unix")
    used = {path for path, text in texts.items() if text in listening}
    # A folder is not mapped, and what is in it is open as well.
    files = [path for path in paths if not path.is_dir()]
    for entry in os.listdir("/proc"):  # noqa: PTH208
        if not entry.isdigit():
            continue
        pid = int(entry)
        command = read_file(f"/proc/{pid}/cmdline")
        maps = read_file(f"/proc/{pid}/maps") if files else b""
        opened = "\0".join(("", *open_files(pid), ""))
        for path, text in texts.items():
            name = f"\0{path}"
            if text in command or text in maps or f"{name}/" in opened or f"{name}\0" in opened:
                used.add(path)
    return used


def remove_path(path: Path) -> bool:
    """Remove a file or a folder with all in it; tell whether it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)


# What chromedriver makes for one session, and Chrome for one socket.
SOCKET_FOLDERS = (
    "org.chromium.Chromium.",
    ".org.chromium.Chromium.",
    "com.google.Chrome.",
    ".com.google.Chrome.",
)
PROFILES = ("org.chromium.Chromium.scoped_dir.", "com.google.Chrome.scoped_dir.", "scoped_dir")
SOCKET_ENTRIES = {SOCKET_LINK, "SingletonCookie"}
# Made, bound and listened to within milliseconds; chromedriver removes its profile as soon after a quit.
YOUNG_FILE_SECONDS = 10.0


def remove_stale_files() -> list[Path]:
    """Remove the throw-away profiles and socket folders whose socket nobody listens to; return them."""
    listed = read_file("/proc/net/unix")
    folders = list(Path(tempfile.gettempdir()).iterdir())
    profiles = [path for path in folders if path.name.startswith(PROFILES) and is_stale_profile(path, listed)]
    sockets = [
        path for path in folders if path.name.startswith(SOCKET_FOLDERS) and is_stale_socket(path, listed)
    ]
    return [*remove_all(profiles), *(path for path in sockets if remove_socket(path))]


def is_stale_profile(profile: Path, listed: bytes) -> bool:
    """Tell whether a folder is a profile of ours whose Chrome is dead and did not quit."""
    link = profile / SOCKET_LINK
    return is_settled(profile, link) and link.is_symlink() and is_dead(link.readlink(), listed)


def is_stale_socket(folder: Path, listed: bytes) -> bool:
    """Tell whether a folder of ours holds a dead socket of Chrome's, and nothing else."""
    path = folder / SOCKET_LINK
    return (
        is_settled(folder, path)
        and stat.S_ISSOCK(path.lstat().st_mode)
        and set(os.listdir(folder)) <= SOCKET_ENTRIES  # noqa: PTH208
        and is_dead(path, listed)
    )


def is_settled(folder: Path, entry: Path) -> bool:
    """Tell whether a folder is our user's, and what it holds under this name is there and not young."""
    try:
        about = folder.lstat()
        made = entry.lstat().st_mtime
    except OSError:
        return False
    ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
    return ours and time.time() - made > YOUNG_FILE_SECONDS


def is_dead(path: Path, listed: bytes) -> bool:
    """Tell whether nobody listens to a socket, or it is gone."""
    # The list is that of our own network namespace: a socket of another one has to be tried.
    if os.fsencode(path) in listed:
        return False
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return True
        except OSError:
            return False
    return False


def remove_socket(folder: Path) -> bool:
    """Remove such a folder; tell whether it is gone."""
    for name in SOCKET_ENTRIES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)


log = logging.getLogger("recyclery")

SWEEP_SECONDS = 10.0


class Sweeper:
    """Sweeps in a thread, beside the ticks, every now and then and when a child has died."""

    def __init__(self) -> None:
        self._due = 0.0
        self._sweeping: asyncio.Task[None] | None = None

    def hurry(self) -> None:
        """Have it done at the next tick."""
        self._due = 0.0

    def begin(self, at: float) -> None:
        """Begin a sweep where one is due and none is under way."""
        if at >= self._due and (self._sweeping is None or self._sweeping.done()):
            self._due = at + SWEEP_SECONDS
            self._sweeping = asyncio.create_task(sweep())


async def sweep() -> None:
    """Sweep once."""
    removed = await asyncio.to_thread(sweep_all)
    if removed:
        log.debug("swept %s", ", ".join(map(str, removed)))


def sweep_all() -> list[object]:
    """Remove the profiles whose owner no longer holds their lock, and what Chromes left unseen; return them."""
    from recyclery_worker.browser.profiles import sweep_profiles  # noqa: PLC0415

    return [*sweep_profiles(), *remove_stale_files()]
