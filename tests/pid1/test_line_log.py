"""A child's output is passed on line by line, whatever pieces it comes in."""

import os
from collections import deque
from collections.abc import Iterator

import pytest

from recyclery.pid1.output import LONGEST_LINE_BYTES, TAIL_LINES, LineLog, Outlet, TextFormat


class Logged:
    """A LineLog, and what came out of it."""

    def __init__(self, reader: int, writer: int) -> None:
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._reader = reader
        self._outlet = Outlet(lambda count: b"", writer)
        self.log = LineLog(self._outlet, TextFormat(), "slow", self.tail)

    def lines(self) -> list[bytes]:
        """Return the lines that came out."""
        self._outlet.drain(1)
        return os.read(self._reader, 1 << 16).splitlines()


@pytest.fixture
def logged() -> Iterator[Logged]:
    """The log of a child called slow."""
    reader, writer = os.pipe()
    yield Logged(reader, writer)
    os.close(reader)
    os.close(writer)


def test_a_pieces_end_in_the_middle_of_a_line_waits_for_the_rest(logged: Logged) -> None:
    logged.log.info(b"one\ntw")
    logged.log.info(b"o\n")
    assert logged.lines() == [b"slow | one", b"slow | two"]


def test_a_letter_torn_over_two_reads_comes_out_whole(logged: Logged) -> None:
    word = "año".encode()
    logged.log.info(word[:2])
    logged.log.info(word[2:] + b"\n")
    assert logged.lines() == ["slow | año".encode()]


def test_a_last_line_without_a_newline_is_not_lost(logged: Logged) -> None:
    logged.log.info(b"half")
    logged.log.close()
    assert logged.lines() == [b"slow | half"]


def test_a_very_long_line_is_cut_and_nothing_of_it_is_lost(logged: Logged) -> None:
    logged.log.info(b"x" * (LONGEST_LINE_BYTES + 5))
    logged.log.info(b"y\n")
    assert logged.lines() == [b"slow | " + b"x" * LONGEST_LINE_BYTES, b"slow | xxxxxy"]


def test_a_long_line_that_comes_at_once_is_cut_too(logged: Logged) -> None:
    logged.log.info(b"x" * (LONGEST_LINE_BYTES + 1) + b"\n")
    assert [len(line) for line in logged.lines()] == [LONGEST_LINE_BYTES + 7, 8]


def test_a_long_line_is_never_cut_inside_a_letter(logged: Logged) -> None:
    # One byte before, so that a letter of two bytes lies across the place to cut.
    logged.log.info(b"x" + "é".encode() * LONGEST_LINE_BYTES + b"\n")
    for line in logged.lines():
        line.decode()


def test_the_last_lines_are_kept_and_no_more(logged: Logged) -> None:
    logged.log.info(b"".join(b"%d\n" % number for number in range(100)))
    assert list(logged.tail) == [b"%d" % number for number in range(100 - TAIL_LINES, 100)]
