"""Signals of PID 1 and of its children, and the reaping of orphans."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

import psutil

# Sent by a terminal that we write to from the background: they must not stop the supervisor.
IGNORED = (signal.SIGTTIN, signal.SIGTTOU)
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
SWEEP_SECONDS = 2.0


class SignalPipe:
    """Makes the loop's poll return when a signal arrives (signal.set_wakeup_fd)."""

    def __init__(self) -> None:
        self.fd, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Return True: the loop polls it."""
        return True

    def writable(self) -> bool:
        """Return False: nothing is written to it here."""
        return False

    def handle_read_event(self) -> None:
        """Empty the pipe: supervisord's own handler has queued the signals."""
        os.read(self.fd, 4096)

    def handle_error(self) -> None:
        """Ignore errors."""


def fork_with_default_signals() -> int:
    """Fork; the child has default dispositions and an empty mask, whatever we were started with.

    All signals are blocked meanwhile: a child that still had our handlers would lose a TERM at its exec.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(signum, signal.SIG_DFL)
            before = set()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_subreaper() -> None:
    """Become the parent of orphans among our descendants (prctl(2)), as PID 1 is anyway."""
    if os.getpid() == 1:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def sweep_descendants() -> None:
    """Kill and reap every remaining descendant, for at most SWEEP_SECONDS."""
    deadline = time.monotonic() + SWEEP_SECONDS
    while time.monotonic() < deadline:
        left = psutil.Process().children(recursive=True)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        if not reap_children() and not left:
            break
        time.sleep(0.02)


def reap_children() -> bool:
    """Reap every child that has ended; return whether any child is left or was reaped."""
    found = False
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            found = True
        found = True
    return found
