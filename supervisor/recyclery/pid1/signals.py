"""Signals: how they wake PID 1's loop, and in what state a child gets them."""

from __future__ import annotations

import os
import signal

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
