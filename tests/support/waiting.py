"""Waiting for a state, never for a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """Look again and again until something true is seen; return it. Fails with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not defunct."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
