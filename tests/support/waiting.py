"""Waiting for a state, never for a time."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 60.0) -> T:
    """Look again and again until something true is seen; return it. Fails with `what` after `seconds`."""
    begun = time.monotonic()
    while True:
        seen = look()
        if seen:
            return seen
        waited = time.monotonic() - begun
        if waited > seconds:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        # What takes long may be seen a little later: looking costs the processor that it waits for.
        time.sleep(min(0.02 + waited / 20, 0.2))


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not defunct."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False
