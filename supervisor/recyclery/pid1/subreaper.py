"""Where we are not PID 1: orphans are handed to us all the same, and none of them outlives us."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SWEEP_SECONDS = 2.0


def become_subreaper() -> None:
    """Make orphans among our descendants our children (prctl(2)); PID 1 has them anyway."""
    if os.getpid() == 1:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def sweep_descendants() -> int:
    """Kill and collect every descendant that is left, for at most SWEEP_SECONDS; return how many there were."""
    myself = psutil.Process()
    swept: set[psutil.Process] = set()
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        left = myself.children(recursive=True)
        for process in left:
            try:
                if process.status() != psutil.STATUS_ZOMBIE:
                    swept.add(process)
                    process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue
        if not collect_children() and not left:
            break
        time.sleep(0.02)
    return len(swept)


def collect_children() -> bool:
    """Reap every child that has ended; tell whether any child is left or was reaped."""
    found = False
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        found = True
        if pid == 0:
            return found
