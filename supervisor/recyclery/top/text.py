"""Styled text for a terminal, measured and cut in columns."""

import unicodedata
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

# Marks where text was cut; ASCII, as the terminal's character set is not known.
CUT = ".."
HOME, REST_OF_LINE, REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Style(Enum):
    """How a piece of text is rendered: its ANSI parameters."""

    PLAIN = ""
    STRONG = "1"
    FAINT = "2"
    GOOD = "32"
    WORRY = "33"
    BAD = "1;31"
    CHOSEN = "7"


class TextSpan(NamedTuple):
    """A piece of a line."""

    text: str
    style: Style = Style.PLAIN


StyledLine = tuple[TextSpan, ...]
Paint = Callable[[StyledLine], str]


def line(text: str, style: Style = Style.PLAIN) -> StyledLine:
    return (TextSpan(text, style),)


def printable(text: str) -> str:
    """Return foreign text without characters that would control the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def width_of(text: str) -> int:
    """Return how many columns a text takes."""
    return len(text) if text.isascii() else sum(map(columns_of, text))


def columns_of(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, width: int) -> str:
    """Return the beginning of a text that fits."""
    taken = 0
    for number, character in enumerate(text):
        taken += columns_of(character)
        if taken > width:
            return text[:number]
    return text


def cut_end(text: str, width: int) -> str:
    """Return a text cut at its end if it does not fit."""
    if width_of(text) <= width:
        return text
    return fit(text, width - len(CUT)) + CUT if width > len(CUT) else fit(text, width)


def cut_middle(text: str, width: int) -> str:
    """Return a text cut in its middle if it does not fit: of a task's name both ends matter."""
    if width_of(text) <= width or width <= len(CUT):
        return cut_end(text, width)
    room = width - len(CUT)
    # The end is the task's own name, so it gets more room.
    end = fit(text[::-1], (room + 1) * 3 // 5)[::-1]
    return fit(text, room - width_of(end)) + CUT + end


def pad(text: str, width: int) -> str:
    """Return a text padded with spaces on its right."""
    return text + " " * (width - width_of(text))


def cut_line(spans: StyledLine, width: int) -> StyledLine:
    """Return a line cut at its end if it does not fit."""
    kept: list[TextSpan] = []
    for span in spans:
        if width <= 0:
            break
        kept.append(TextSpan(cut_end(span.text, width), span.style))
        width -= width_of(span.text)
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


def paint_plain(spans: StyledLine) -> str:
    """Return a line's text alone."""
    return "".join(span.text for span in spans).rstrip()


def paint_styled(spans: StyledLine) -> str:
    return "".join(
        f"\x1b[{span.style.value}m{span.text}\x1b[m" if span.style is not Style.PLAIN else span.text
        for span in spans
    )


def compose_screen(lines: Sequence[StyledLine], width: int, paint: Paint) -> str:
    """Return what draws a frame over the one before it, without flicker."""
    # After a full line the cursor is still in its last column, which must not be erased.
    rows = [
        paint(spans) + ("" if sum(width_of(span.text) for span in spans) >= width else REST_OF_LINE)
        for spans in lines
    ]
    return HOME + "\r\n".join(rows) + REST_OF_SCREEN
