"""When a worker that keeps dying is given up."""

from __future__ import annotations

import os
from collections.abc import Iterable

from supervisor.options import signame


def recent(deaths: Iterable[float], now: float, window_seconds: float) -> list[float]:
    """Return those deaths that are not older than the window."""
    return [at for at in deaths if now - at <= window_seconds]


def is_death(status: int, *, asked: bool) -> bool:
    """Tell whether a process that ended with this wait status died: nobody asked it to, and it was not done.

    A worker that ends with 0 was told to stop after its tasks, to be started anew.
    """
    return not asked and status != 0


def describe_end(status: int) -> str:
    """Say how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    name = signame(os.WTERMSIG(status))
    # Of all that sends it unasked the kernel is the first to think of (gunicorn says so too).
    return f"was killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"
