"""What is typed, as keys that mean something."""

from __future__ import annotations

import re
from enum import Enum

# Escape sequences whole, else the letters of one would be taken for keys.
PRESSED = re.compile(rb"\x1b[\[O][0-9;]*[A-Za-z~]|.", re.DOTALL)


class Key(Enum):
    """A key that means something; OTHER is any that does not, and so is no answer but a no."""

    QUIT = "q"
    INTERRUPT = "Ctrl-C"
    SUSPEND = "Ctrl-Z"
    UP = "up"
    DOWN = "down"
    RECYCLE = "r"
    REAP = "b"
    YES = "y"
    HELP = "?"
    OTHER = ""


MEANINGS = {
    b"q": Key.QUIT,
    b"\x03": Key.INTERRUPT,
    b"\x1a": Key.SUSPEND,
    b"k": Key.UP,
    b"\x1b[A": Key.UP,
    b"\x1bOA": Key.UP,
    b"j": Key.DOWN,
    b"\x1b[B": Key.DOWN,
    b"\x1bOB": Key.DOWN,
    b"r": Key.RECYCLE,
    b"b": Key.REAP,
    b"y": Key.YES,
    b"Y": Key.YES,
    b"?": Key.HELP,
}


def read_keys(typed: bytes) -> list[Key]:
    """Return the keys in what was typed."""
    return [MEANINGS.get(pressed, Key.OTHER) for pressed in PRESSED.findall(typed)]
