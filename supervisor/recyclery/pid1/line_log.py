"""Cuts one child's output into lines, passes them on, and keeps the last ones."""

from __future__ import annotations

from collections import deque

from recyclery.pid1.log_format import LogFormat
from recyclery.pid1.outlet import Outlet

# Where Docker's own log drivers cut; a line without an end must not fill memory.
LONGEST_LINE_BYTES = 16 << 10
TAIL_LINES = 20
TAIL_LINE_BYTES = 1000


class LineLog:
    """One child's output.

    Stands where supervisord's dispatchers expect a logger: they call `info` and look at `handlers`.
    """

    handlers: tuple[()] = ()

    def __init__(self, outlet: Outlet, log_format: LogFormat, name: str, tail: deque[bytes]) -> None:
        self._outlet = outlet
        self._format = log_format
        self._name = name
        self._tail = tail
        self._rest = b""

    def info(self, data: bytes | str) -> None:
        """Take a piece of output, which may end in the middle of a line or of a letter."""
        *lines, self._rest = (self._rest + (data.encode() if isinstance(data, str) else data)).split(b"\n")
        for line in lines:
            self._pass_on(self._cut(line), cut=False)
        self._rest = self._cut(self._rest)

    def _cut(self, line: bytes) -> bytes:
        """Pass on the beginning of a line that is too long; return its end."""
        while len(line) > LONGEST_LINE_BYTES:
            at = letter_boundary(line, LONGEST_LINE_BYTES)
            self._pass_on(line[:at], cut=True)
            line = line[at:]
        return line

    def _pass_on(self, line: bytes, *, cut: bool) -> None:
        self._tail.append(line[:TAIL_LINE_BYTES])
        self._outlet.put(self._format.output(self._name, line, cut=cut))

    def close(self) -> None:
        """Pass on a last line that has no newline."""
        if self._rest:
            self._pass_on(self._rest, cut=False)
            self._rest = b""


def letter_boundary(line: bytes, at: int) -> int:
    """Return the place nearest before `at` that is not inside a letter of UTF-8, if there is one close by."""
    for place in range(at, at - 4, -1):
        if line[place] & 0xC0 != 0x80:
            return place
    return at
