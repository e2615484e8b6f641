"""One frame: all rows, as far as they fit, and the status line below them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from recyclery.control.status_schema import Event, Status
from recyclery.top.container import draw_browsers, draw_memory
from recyclery.top.pools import draw_pools
from recyclery.top.rows import Rank, Row, keep_rows
from recyclery.top.text import Line, Span, Style, clean, cut_line, format_age, line
from recyclery.top.troubles import Trouble, find_troubles
from recyclery.top.view import SAID_SECONDS, Reap, Recycle, View

# A governor that is well answers in less, also on a busy machine.
LATE_SECONDS = 4.0
# The worst troubles are shown in any window; of the rest at least that there are more.
SURE_TROUBLES = 4
EVENT_INDENT = 12
EVENT_LINES = 3
# So many lines of events come before what all is well with; more only where there is room.
SURE_EVENT_LINES = 6
LEAST_EVENT_WIDTH = 20
KEYS = "q quit  up/down or j/k choose a pool  r recycle it  b reap browsers  ? hide this"


class Setting(NamedTuple):
    """Where and when a frame is drawn: `now` as the view's times, `clock` as people read it."""

    width: int
    height: int
    host: str
    clock: str
    now: float


def draw_frame(view: View, setting: Setting) -> list[Line]:
    """Return the lines of a live frame, no more and no wider than fit."""
    rows = list(draw_rows(view, setting))
    room = setting.height - 1
    # With room for one line a question is it, else the title.
    if room < 1 and view.question is None:
        return [cut_line(rows[0].line, setting.width)]
    kept = keep_rows(rows, room)
    blank = [line("")] * (room - len(kept))
    below = draw_status_line(view, setting.now, hidden=len(rows) - len(kept))
    return [cut_line(each, setting.width) for each in (*(row.line for row in kept), *blank, below)]


def draw_page(status: Status, setting: Setting) -> list[Line]:
    """Return all lines of a frame that is printed once."""
    view = View(status=status, seen=setting.now, oom_kills_before=0)
    return [cut_line(row.line, setting.width) for row in draw_rows(view, setting)]


def draw_rows(view: View, setting: Setting) -> Iterator[Row]:
    """Yield all rows; what is not of now is faint."""
    troubles = find_troubles(view.status, view.oom_kills_before) if view.status is not None else []
    stale = describe_silence(view, setting.now)
    yield Row(Rank.TITLE, draw_title(view, troubles, setting, is_stale=stale is not None))
    if stale is not None:
        yield Row(Rank.TROUBLE, draw_trouble(stale))
    if view.away is not None:
        for text in textwrap.wrap(clean(view.away.reason), max(setting.width - 3, LEAST_EVENT_WIDTH)):
            yield Row(Rank.REST if view.status is not None else Rank.TROUBLE, line(f"   {text}", Style.FAINT))
    if view.status is None:
        return
    for row in draw_status(view.status, view.chosen, troubles, setting.width):
        yield row if stale is None else Row(row.rank, tuple(Span(s.text, Style.FAINT) for s in row.line))


def draw_status(status: Status, chosen: str | None, troubles: Sequence[Trouble], width: int) -> Iterator[Row]:
    """Yield the rows of what the governor says."""
    for number, trouble in enumerate(troubles):
        yield Row(Rank.TROUBLE if number < SURE_TROUBLES else Rank.EVENT, draw_trouble(trouble))
    yield Row(Rank.SPACE, line(""))
    yield from draw_memory(status.container, width)
    yield draw_browsers(status.browsers)
    yield Row(Rank.SPACE, line(""))
    yield from draw_pools(status.pools, chosen, width)
    yield Row(Rank.SPACE, line(""))
    yield from draw_events(status.recent, width)


def describe_silence(view: View, now: float) -> Trouble | None:
    """Say that the governor is not heard, and since when; None while it is."""
    if view.away is not None:
        below = "; below is how it was" if view.status is not None else ""
        return Trouble(f"governor away, retrying ({format_age(now - view.away_since)}){below}", bad=True)
    if view.status is not None and now - view.seen > LATE_SECONDS:
        silent = format_age(now - view.seen)
        return Trouble(f"governor has not answered for {silent}; below is how it was", bad=True)
    return None


def draw_title(view: View, troubles: Sequence[Trouble], setting: Setting, *, is_stale: bool) -> Line:
    """Return the first line: where, when, and whether anything is wrong."""
    if view.status is None:
        verdict = Span("asking the governor" if view.away is None else "NO NEWS", Style.STRONG)
    elif is_stale:
        verdict = Span("NO NEWS", Style.BAD)
    elif troubles:
        worst = Style.BAD if troubles[0].bad else Style.WORRY
        verdict = Span(f"{len(troubles)} WRONG", worst)
    else:
        verdict = Span("all is well", Style.GOOD)
    return (
        Span("recyclery top  ", Style.STRONG),
        verdict,
        Span(f"  {setting.clock}  {clean(setting.host)}"),
    )


def draw_trouble(trouble: Trouble) -> Line:
    """Return a trouble's line; its mark tells without colour how bad it is."""
    return line(f"{'!!' if trouble.bad else ' !'} {trouble.text}", Style.BAD if trouble.bad else Style.WORRY)


def draw_events(recent: Sequence[Event], width: int) -> Iterator[Row]:
    """Yield the rows of what was done lately, the newest first."""
    drawn = 0
    for event in recent:
        style = Style.PLAIN if event.done else Style.WORRY
        when = f"{' ' if event.done else '!'}{format_age(event.age_seconds):>6} ago"
        for place, text in enumerate(
            textwrap.wrap(
                clean(event.text),
                max(width - EVENT_INDENT - 1, LEAST_EVENT_WIDTH),
                max_lines=EVENT_LINES,
                placeholder=" ..",
            )
        ):
            yield Row(rank_event(drawn), line(f"{when if place == 0 else '':{EVENT_INDENT}} {text}", style))
            drawn += 1


def rank_event(lines_before: int) -> Rank:
    """Return what a line of an event is worth: the older, the less."""
    if lines_before < EVENT_LINES:
        return Rank.NEWEST
    return Rank.EVENT if lines_before < SURE_EVENT_LINES else Rank.REST


def draw_status_line(view: View, now: float, hidden: int) -> Line:
    """Return the last line: a question, what came of an order, or which keys there are."""
    match view.question:
        case Recycle(pool):
            return line(
                f"recycle {pool}? a new worker takes over, running tasks are finished  y/n", Style.CHOSEN
            )
        case Reap():
            return line("reap? browsers that no task owns are killed now  y/n", Style.CHOSEN)
    if view.helping:
        return line(KEYS)
    if view.said is not None and now - view.said_at < SAID_SECONDS:
        return line(clean(view.said.text), Style.BAD if view.said.bad else Style.STRONG)
    rest = f"   {hidden} lines do not fit" if hidden > 0 else ""
    return line(f"? for keys{rest}", Style.FAINT)
