"""A terminal: the end that a program has, and the one that a person has."""

import fcntl
import os
import signal
import termios
from contextlib import suppress


def become_terminals_session() -> None:
    """Lead a session whose terminal is standard input, as `docker run -it` has it."""
    os.setsid()
    hear_interrupts()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def hear_interrupts() -> None:
    """End by Ctrl-C: a shell has what it runs in the background ignore that, and these tests may be of it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The other end of a terminal."""

    def __init__(self) -> None:
        self.ours, self.theirs = os.openpty()
        self._seen = bytearray()
        os.set_blocking(self.ours, False)

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.ours, keys)

    @property
    def screen(self) -> str:
        """All that was printed so far."""
        self.shows(b"")
        return self._seen.decode(errors="replace")

    def shows(self, text: bytes) -> bool:
        """Tell whether a text was printed so far."""
        with suppress(OSError):
            self._seen += os.read(self.ours, 1 << 16)
        return text in self._seen
