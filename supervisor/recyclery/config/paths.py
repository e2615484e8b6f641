"""Where sockets live, and what is to outlive a restart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from recyclery.config.slots import slots_of

DEFAULT_RUNTIME_DIR = Path("/run/recyclery")
DEFAULT_STATE_DIR = Path("/var/lib/recyclery")
# A unix socket's address holds 107 bytes (unix(7)); the longest name we add is a worker's.
LONGEST_ADDRESS = 107


class UnusableDirectory(Exception):
    """The runtime folder cannot be used; the message says why."""


def find_runtime_dir(environment: Mapping[str, str]) -> Path:
    """Return the runtime folder: the stated one, /run/recyclery where writable, else a private temp folder."""
    if stated := environment.get("RECYCLERY_RUNTIME_DIR"):
        return Path(stated)
    parent = DEFAULT_RUNTIME_DIR if DEFAULT_RUNTIME_DIR.exists() else DEFAULT_RUNTIME_DIR.parent
    if os.access(parent, os.W_OK | os.X_OK):
        return DEFAULT_RUNTIME_DIR
    return Path(tempfile.gettempdir()) / f"recyclery-{os.getuid()}"


def find_state_dir(environment: Mapping[str, str]) -> Path:
    """Return the state folder: the stated one, /var/lib/recyclery where writable, else one in the home."""
    if stated := environment.get("RECYCLERY_STATE_DIR"):
        return Path(stated)
    parent = DEFAULT_STATE_DIR if DEFAULT_STATE_DIR.exists() else DEFAULT_STATE_DIR.parent
    if os.access(parent, os.W_OK | os.X_OK):
        return DEFAULT_STATE_DIR
    return Path(environment.get("HOME") or tempfile.gettempdir()) / ".local" / "state" / "recyclery"


def heartbeat_file(runtime_dir: Path) -> Path:
    """Where the governor says that it lives, and how the pools are."""
    return runtime_dir / "heartbeat.json"


def history_file(state_dir: Path) -> Path:
    """Where the history is kept."""
    return state_dir / "history.db"


def prepare_runtime_dir(path: Path, pool_names: Iterable[str]) -> None:
    """Make the runtime folder, ours alone, with room for the pools' sockets; raises UnusableDirectory."""
    slots = (slot for name in pool_names for slot in slots_of(name))
    longest = LONGEST_ADDRESS - max(len(f"/worker-{slot}.sock") for slot in slots)
    if len(os.fsencode(path)) > longest:
        raise UnusableDirectory(
            f"{path}: longer than {longest} bytes, too long for unix sockets; "
            "set RECYCLERY_RUNTIME_DIR to a shorter one"
        )
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
        if status.st_uid != os.getuid():
            raise UnusableDirectory(
                f"{path}: belongs to another user; set RECYCLERY_RUNTIME_DIR to one of yours"
            )
        if status.st_mode & 0o022:
            raise UnusableDirectory(
                f"{path}: others can write to it; set RECYCLERY_RUNTIME_DIR to a folder of its own"
            )
        if not os.access(path, os.W_OK):
            raise UnusableDirectory(f"{path}: not writable; set RECYCLERY_RUNTIME_DIR to a writable folder")
    except OSError as error:
        raise UnusableDirectory(
            f"{path}: {error.strerror}; set RECYCLERY_RUNTIME_DIR to a writable folder"
        ) from None
