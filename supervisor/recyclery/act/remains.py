"""Removes what browsers leave on disk: what they name, have open or have mapped, and nobody else uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recyclery.observe.processes import read_file
from recyclery.observe.snapshot import Remains
from recyclery.observe.throwaway import named_folders, throwaway, words

# What the kernel says after the name of a file that has none any more.
GONE = " (deleted)"


def find_remains(pids: Iterable[int]) -> set[Path]:
    """Return the throw-away folders and files that these living processes name, have open or have mapped."""
    found = set()
    for pid in pids:
        found |= set(named_folders(words(read_file(f"/proc/{pid}/cmdline"))))
        for name in (*open_files(pid), *mapped_files(pid)):
            path = None if name.endswith(GONE) else throwaway(Path(name))
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
    return [path for path in there if path not in used and remove(path)]


def clean(remains: Iterable[Remains]) -> list[Path]:
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


def remove(path: Path) -> bool:
    """Remove a file or a folder with all in it; tell whether it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()
    return not os.path.lexists(path)
