"""The runtime folder with its sockets, and the state folder, which outlives a restart."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from recyclery.config.slots import slots_of

DEFAULT_RUNTIME_DIR = Path("/run/recyclery")
DEFAULT_STATE_DIR = Path("/var/lib/recyclery")
# A unix socket's address holds 107 bytes (unix(7)); the longest name in the folder is a worker's socket.
LONGEST_ADDRESS = 107


class UnusableDirectory(Exception):
    """The runtime folder cannot be used; the message says why."""


def find_runtime_dir(environment: Mapping[str, str]) -> Path:
    """Return RECYCLERY_RUNTIME_DIR, else /run/recyclery where writable, else a private folder in /tmp."""
    if stated := environment.get("RECYCLERY_RUNTIME_DIR"):
        return Path(stated)
    private = Path(tempfile.gettempdir()) / f"recyclery-{os.getuid()}"
    return DEFAULT_RUNTIME_DIR if is_usable(DEFAULT_RUNTIME_DIR) else private


def find_state_dir(environment: Mapping[str, str]) -> Path:
    """Return RECYCLERY_STATE_DIR, else /var/lib/recyclery where writable, else a folder in the home."""
    if stated := environment.get("RECYCLERY_STATE_DIR"):
        return Path(stated)
    home = Path(environment.get("HOME") or tempfile.gettempdir())
    return DEFAULT_STATE_DIR if is_usable(DEFAULT_STATE_DIR) else home / ".local" / "state" / "recyclery"


def is_usable(directory: Path) -> bool:
    """Return whether a folder is writable, or can be made."""
    return os.access(directory if directory.exists() else directory.parent, os.W_OK | os.X_OK)


def heartbeat_file(runtime_dir: Path) -> Path:
    """Return the file with the governor's heartbeat and the pools' states."""
    return runtime_dir / "heartbeat.json"


def supervisord_socket(runtime_dir: Path) -> Path:
    """Where PID 1 answers XML-RPC, for the governor and for supervisorctl."""
    return runtime_dir / "supervisor.sock"


def history_file(state_dir: Path) -> Path:
    """Return the database of the history."""
    return state_dir / "history.db"


def prepare_runtime_dir(path: Path, pool_names: Iterable[str]) -> None:
    """Make the runtime folder, private and with a short enough path for sockets; raises UnusableDirectory."""
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
    except OSError as error:
        problem, advice = error.strerror, "a writable folder"
    else:
        if status.st_uid != os.getuid():
            problem, advice = "belongs to another user", "one of yours"
        elif status.st_mode & 0o022:
            problem, advice = "others can write to it", "a folder of its own"
        elif not os.access(path, os.W_OK):
            problem, advice = "not writable", "a writable folder"
        else:
            return
    raise UnusableDirectory(f"{path}: {problem}; set RECYCLERY_RUNTIME_DIR to {advice}")
