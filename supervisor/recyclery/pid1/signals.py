"""Signals: how they wake PID 1's loop, and in what state a child gets them."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import psutil

# A stray one, from a terminal that we write to from the background, must not stop the supervisor.
IGNORED = (signal.SIGTTIN, signal.SIGTTOU)
FIXED = frozenset({signal.SIGKILL, signal.SIGSTOP})


class SignalPipe:
    """Makes the loop's poll return when a signal comes (signal.set_wakeup_fd)."""

    def __init__(self) -> None:
        self.fd, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Tell that the loop should watch it."""
        return True

    def writable(self) -> bool:
        """Never written to from here."""
        return False

    def handle_read_event(self) -> None:
        """Empty the pipe: which signals came is known to supervisord's own handler."""
        os.read(self.fd, 4096)

    def handle_error(self) -> None:
        """Go on."""


def fork_with_default_signals() -> int:
    """Fork; the child has default dispositions and an empty mask, whatever we were started with.

    All are blocked meanwhile: a TERM for a child that still had our handlers would be lost with its exec.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in signal.valid_signals() - FIXED:
                signal.signal(signum, signal.SIG_DFL)
            before = set()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
