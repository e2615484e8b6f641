"""Lines as a terminal takes them: in place, with or without colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from recyclery.top.text import Line, Style, width_of

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
