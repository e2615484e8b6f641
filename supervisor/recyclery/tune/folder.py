"""The folder of a tuning: its path is short, for sockets live in it; gone with the tuning, or with the next."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Not in $TMPDIR: a socket's whole path has but 107 bytes.
PLACE = Path("/tmp")  # noqa: S108  # each folder is made for its owner alone
PREFIX = "rt-"
# One that was just made is not locked yet.
YOUNG_SECONDS = 60.0


@contextmanager
def own_folder(place: Path = PLACE) -> Iterator[Path]:
    """Yield a folder that is removed afterwards, and remove those of our tunings that were killed."""
    remove_dead(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(held)


def remove_dead(place: Path) -> None:
    """Remove the folders whose tuning is gone: the kernel let go of its lock."""
    for folder in place.glob(f"{PREFIX}*"):
        try:
            held = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            about = os.fstat(held)
            if about.st_uid == os.geteuid() and time.time() - about.st_mtime > YOUNG_SECONDS:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(held)
