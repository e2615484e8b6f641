"""Text for a terminal: styled pieces, and what fits a number of columns."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

# What was left out stands here; ASCII, for who knows what the other end can show.
CUT = ".."


class Style(Enum):
    """What a piece of text is to the eye."""

    PLAIN = "plain"
    STRONG = "strong"
    FAINT = "faint"
    GOOD = "good"
    WORRY = "worry"
    BAD = "bad"
    CHOSEN = "chosen"


class Span(NamedTuple):
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


Line = tuple[Span, ...]


def line(text: str, style: Style = Style.PLAIN) -> Line:
    """Return a line in one style."""
    return (Span(text, style),)


def clean(text: str) -> str:
    """Return a text that came from elsewhere without what would steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def width_of(text: str) -> int:
    """Return the columns that a text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def cut_end(text: str, width: int) -> str:
    """Return as much of a text as fits."""
    if width_of(text) <= width:
        return text
    return _fill(text, width - len(CUT)) + CUT if width > len(CUT) else _fill(text, width)


def cut_middle(text: str, width: int) -> str:
    """Return a text that fits, with its beginning and its end: of a task's name both tell."""
    if width_of(text) <= width or width <= len(CUT):
        return cut_end(text, width)
    room = width - len(CUT)
    # The end says more: it is the task's own name.
    end = _fill(text[::-1], (room + 1) * 3 // 5)[::-1]
    return _fill(text, room - width_of(end)) + CUT + end


def pad(text: str, width: int) -> str:
    """Return a text filled up with spaces on its right."""
    return text + " " * (width - width_of(text))


def cut_line(spans: Line, width: int) -> Line:
    """Return as much of a line as fits."""
    kept: list[Span] = []
    for span in spans:
        if (room := width - sum(width_of(before.text) for before in kept)) <= 0:
            break
        kept.append(Span(cut_end(span.text, room), span.style))
    return tuple(kept)


def format_age(seconds: float) -> str:
    """Return a time in at most six characters: 42s, 12m05s, 3h12m, 5d04h."""
    whole = int(seconds)
    if whole < 100:
        return f"{whole}s"
    if whole < 6000:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 48 * 3600:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _fill(text: str, width: int) -> str:
    taken = 0
    for place, character in enumerate(text):
        taken += _columns(character)
        if taken > width:
            return text[:place]
    return text


HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
RENDITIONS = {
    Style.STRONG: "1",
    Style.FAINT: "2",
    Style.GOOD: "32",
    Style.WORRY: "33",
    Style.BAD: "1;31",
    Style.CHOSEN: "7",
}

Paint = Callable[[Line], str]


def paint_plain(line: Line) -> str:
    """Return a line's text alone."""
    return "".join(span.text for span in line).rstrip()


def paint_styled(line: Line) -> str:
    """Return a line with its styles."""
    return "".join(
        f"\x1b[{RENDITIONS[span.style]}m{span.text}\x1b[m" if span.style in RENDITIONS else span.text
        for span in line
    )


def compose_screen(lines: Sequence[Line], width: int, paint: Paint) -> str:
    """Return what draws a frame over the one before it, without a moment of emptiness between."""
    return HOME + "\r\n".join(_compose(lines, width, paint)) + REST_OF_SCREEN


def _compose(lines: Iterable[Line], width: int, paint: Paint) -> Iterable[str]:
    for line in lines:
        # In the last column the cursor stands on what was just written: nothing is to be erased there.
        is_full = sum(width_of(span.text) for span in line) >= width
        yield paint(line) if is_full else paint(line) + REST_OF_LINE
