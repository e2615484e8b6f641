"""Removes the socket folders that Chromes have left; one that was killed at once was never seen with its own.

Chrome keeps one process to a profile by a socket in a folder of its own in the temporary folder
(chrome/browser/process_singleton_posix.cc). Chrome removes it as it quits.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from recyclery.observe.processes import read_file
from recyclery.observe.throwaway import SOCKET_LINK

FOLDERS = (
    "org.chromium.Chromium.",
    ".org.chromium.Chromium.",
    "com.google.Chrome.",
    ".com.google.Chrome.",
)
ENTRIES = {SOCKET_LINK, "SingletonCookie"}
# Made, bound and listened to within milliseconds.
YOUNG_SECONDS = 10.0


def sweep_sockets() -> list[Path]:
    """Remove the folders that hold nothing but a socket of Chrome's at which nobody listens; return them."""
    listed = read_file("/proc/net/unix")
    folders = (path for path in Path(tempfile.gettempdir()).iterdir() if path.name.startswith(FOLDERS))
    return [path for path in folders if is_left(path, listed) and remove(path)]


def is_left(folder: Path, listed: bytes) -> bool:
    """Tell whether a folder is of our user, of its kind, settled, and its socket dead."""
    try:
        about = folder.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.geteuid():
            return False
        if time.time() - about.st_mtime < YOUNG_SECONDS or not set(os.listdir(folder)) <= ENTRIES:  # noqa: PTH208
            return False
    except OSError:
        return False
    path = folder / SOCKET_LINK
    # The list is that of our own network namespace: a socket of another one has to be tried.
    return os.fsencode(path) not in listed and refuses(path)


def refuses(path: Path) -> bool:
    """Tell whether a socket is there that nobody listens to."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def remove(folder: Path) -> bool:
    """Remove such a folder; tell whether it is gone."""
    for name in ENTRIES:
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return not os.path.lexists(folder)
