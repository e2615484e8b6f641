"""Which folders and files are made for one browser session, to be thrown away; never one a person chose."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  # Chrome's place, not ours
# What `browser()` makes: its owner holds a lock on it, and it is swept by that.
OWN_PREFIX = "recyclery-profile-"
# Folders and files that chromedriver, Chromium and Chrome name so themselves.
PREFIXES = (
    "org.chromium.",
    ".org.chromium.",
    "com.google.Chrome.",
    ".com.google.Chrome.",
    "scoped_dir",
)
# How a process of a browser names its profile, and its place for crash reports.
FOLDER_ARGUMENTS = ("--user-data-dir=", "--database=")
PROFILE_ARGUMENT = FOLDER_ARGUMENTS[0]
# The link in a profile to the socket of the browser that has it open; that lies in a folder of its own.
SOCKET_LINK = "SingletonSocket"


def throwaway(path: Path) -> Path | None:
    """Return the throw-away folder or file that a path is or lies in; None where there is none."""
    if ".." in path.parts:
        return None
    for base in (Path(tempfile.gettempdir()), SHARED_MEMORY):
        if path != base and path.is_relative_to(base):
            top = base / path.relative_to(base).parts[0]
            if top.name.startswith((OWN_PREFIX, *PREFIXES)):
                return top
    return None


def words(command: bytes) -> list[str]:
    """Return the words of /proc/PID/cmdline; Chrome writes its own anew, with spaces between them."""
    return [os.fsdecode(word) for word in command.replace(b"\0", b" ").split(b" ")]


def named_folders(command: list[str]) -> Iterator[Path]:
    """Yield the throw-away folders that a command names, and those that its profile links to."""
    for word in command:
        for argument in FOLDER_ARGUMENTS:
            if word.startswith(argument):
                path = Path(word.removeprefix(argument))
                found = throwaway(path)
                if found is not None:
                    yield found
                if argument == PROFILE_ARGUMENT:
                    yield from linked_folder(path)


def linked_folder(profile: Path) -> Iterator[Path]:
    """Yield the throw-away folder of a profile's socket, whoever chose the profile."""
    try:
        found = throwaway((profile / SOCKET_LINK).readlink())
    except OSError:
        return
    if found is not None:
        yield found
