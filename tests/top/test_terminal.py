"""The terminal is taken for a while and given back."""

import termios

import pytest

from recyclery.top.live import LEAVE_SCREEN, Terminal
from support.terminal import Terminal as Person
from support.waiting import wait_for
from support.watched import set_size


def test_an_exception_leaves_the_terminal_as_it_was() -> None:
    person = Person()
    before = termios.tcgetattr(person.theirs)
    terminal = Terminal(person.theirs, person.theirs)
    with pytest.raises(ZeroDivisionError), terminal:
        terminal.write(str(1 // 0))
    assert termios.tcgetattr(person.theirs) == before
    wait_for(lambda: person.shows(LEAVE_SCREEN.encode()), "the screen is given back")


def test_keys_come_one_by_one_and_are_not_echoed() -> None:
    person = Person()
    with Terminal(person.theirs, person.theirs) as terminal:
        person.type(b"r\x03")
        assert terminal.read() == b"r\x03"
    wait_for(lambda: person.shows(LEAVE_SCREEN.encode()), "all was printed")
    assert "r\x03" not in person.screen
    assert "^C" not in person.screen


def test_a_terminal_that_does_not_tell_its_size_is_taken_for_80_by_24() -> None:
    person = Person()
    set_size(person, 0, 0)
    assert Terminal(person.theirs, person.theirs).size() == (80, 24)
    set_size(person, 100, 30)
    assert Terminal(person.theirs, person.theirs).size() == (100, 30)
