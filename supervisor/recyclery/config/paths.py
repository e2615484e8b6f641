"""The runtime folder with its sockets, and the state folder, which outlives a restart."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

DEFAULT_RUNTIME_DIR = Path("/run/recyclery")
DEFAULT_STATE_DIR = Path("/var/lib/recyclery")


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
