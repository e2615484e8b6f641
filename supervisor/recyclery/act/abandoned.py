"""Removes what Chromes left that died before anybody had looked at them: the folders tell it themselves.

Chrome keeps one process to a profile by a socket in a folder of its own in the temporary folder, to which the
profile links (chrome/browser/process_singleton_posix.cc). It removes both as it quits.
"""

from __future__ import annotations

import os
import socket
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from recyclery.act.remains import remove_all
from recyclery.observe.processes import read_file
from recyclery.observe.throwaway import SOCKET_LINK

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
YOUNG_SECONDS = 10.0


def sweep_abandoned() -> list[Path]:
    """Remove the throw-away profiles and socket folders whose socket nobody listens to; return them."""
    listed = read_file("/proc/net/unix")
    folders = list(Path(tempfile.gettempdir()).iterdir())
    profiles = [path for path in folders if path.name.startswith(PROFILES) and is_left_profile(path, listed)]
    sockets = [
        path for path in folders if path.name.startswith(SOCKET_FOLDERS) and is_left_socket(path, listed)
    ]
    return [*remove_all(profiles), *(path for path in sockets if remove_socket(path))]


def is_left_profile(profile: Path, listed: bytes) -> bool:
    """Tell whether a folder is a profile of ours whose Chrome is dead and did not quit."""
    link = profile / SOCKET_LINK
    return is_settled(profile, link) and link.is_symlink() and is_dead(link.readlink(), listed)


def is_left_socket(folder: Path, listed: bytes) -> bool:
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
    return ours and time.time() - made > YOUNG_SECONDS


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
