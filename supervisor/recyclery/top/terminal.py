"""The terminal: taken over for the time of a block, and always given back as it was."""

from __future__ import annotations

import os
import termios
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

# The alternate screen, no cursor, no wrapping at the last column; and back.
TAKE = "\x1b[?1049h\x1b[?25l\x1b[?7l"
GIVE_BACK = "\x1b[?7h\x1b[?25h\x1b[?1049l"
# Where a terminal does not tell its size: a container's that was given none.
COLUMNS, LINES = 80, 24
LOCAL_MODES = 3
CONTROL_CHARACTERS = 6


class Terminal:
    """Keys come one by one and are not echoed; Ctrl-C and Ctrl-Z are keys like others."""

    def __init__(self, keyboard: int, screen: int) -> None:
        self.keyboard = keyboard
        self._screen = screen
        self._before: list[Any] = []

    def __enter__(self) -> Self:
        self._before = termios.tcgetattr(self.keyboard)
        try:
            self.take()
        except BaseException:
            self.give_back()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_back()

    def take(self) -> None:
        """Begin to draw and to read keys."""
        modes = termios.tcgetattr(self.keyboard)
        modes[LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        modes[CONTROL_CHARACTERS][termios.VMIN] = 1
        modes[CONTROL_CHARACTERS][termios.VTIME] = 0
        termios.tcsetattr(self.keyboard, termios.TCSANOW, modes)
        self.write(TAKE)

    def give_back(self) -> None:
        """Leave it as it was found; one that is gone needs nothing."""
        with suppress(termios.error):
            termios.tcsetattr(self.keyboard, termios.TCSANOW, self._before)
        with suppress(OSError):
            self.write(GIVE_BACK)

    def size(self) -> os.terminal_size:
        """Return columns and lines."""
        size = os.get_terminal_size(self._screen)
        return os.terminal_size((size.columns or COLUMNS, size.lines or LINES))

    def read(self) -> bytes:
        """Return what was typed; nothing where nobody can type any more."""
        try:
            return os.read(self.keyboard, 1024)
        except OSError:
            return b""

    def write(self, text: str) -> None:
        """Print; raises OSError where the terminal is gone."""
        left = text.encode(errors="replace")
        while left:
            left = left[os.write(self._screen, left) :]
