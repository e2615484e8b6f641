"""Rows of the screen, and which of them stay where there is not room for all."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_bytes
from recyclery.control.problems import Trouble, find_troubles
from recyclery.control.status_schema import (
    BrowserStatus,
    ChildStatus,
    ContainerStatus,
    Event,
    PoolStatus,
    Status,
)
from recyclery.top.text import Line, Span, Style, clean, cut_line, cut_middle, format_age, line, pad
from recyclery.top.view import SAID_SECONDS, Reap, Recycle, View


class Rank(IntEnum):
    """What a row is worth; the last go first."""

    TITLE = 0
    TROUBLE = 1
    MEMORY = 2
    CHOSEN = 3
    POOL = 4
    FIGURES = 5
    NEWEST = 6
    CHOSEN_CHILD = 7
    CHILD = 8
    EVENT = 9
    SPACE = 10
    DETAIL = 11
    REST = 12


class Row(NamedTuple):
    """A line and its rank."""

    rank: Rank
    line: Line


def keep_rows(rows: Sequence[Row], height: int) -> list[Row]:
    """Return the rows worth most, as many as fit, in their order; of equal ones the upper stay."""
    places = sorted(range(len(rows)), key=lambda place: (rows[place].rank, place))
    return [rows[place] for place in sorted(places[: max(height, 0)])]


INDENT = 10
LEAST_BAR = 10


def draw_memory(container: ContainerStatus, width: int) -> Iterator[Row]:
    """Yield a bar of what cannot be reclaimed, with the levels marked in it, and the figures."""
    style = judge_floor(container)
    limit = max(container.limit_bytes, 1)
    share = container.floor_bytes / limit
    told = f"{format_bytes(container.floor_bytes)} of {format_bytes(container.limit_bytes)}, {share:.0%}"
    bar = draw_bar(container, width - INDENT - len(told) - 3)
    yield Row(Rank.MEMORY, (Span(f"{'memory':{INDENT}}"), Span(f"{bar} {told}".lstrip(), style)))
    levels = "  ".join(
        f"{name} {format_bytes(size)}"
        for name, size in (
            ("retire", container.retire_bytes),
            ("high", container.high_bytes),
            ("hard", container.hard_bytes),
        )
    )
    kills = Span(f"OOM kills {container.oom_kills}", Style.BAD if container.oom_kills else Style.PLAIN)
    yield Row(Rank.FIGURES, (Span(" " * INDENT), Span(f"{levels}  "), kills))
    yield Row(
        Rank.DETAIL,
        line(
            f"{'':{INDENT}}usage {format_bytes(container.usage_bytes)}, "
            f"working set {format_bytes(container.working_set_bytes)}, "
            f"not the pools' {format_bytes(container.unattributed_bytes)}",
            Style.FAINT,
        ),
    )


def judge_floor(container: ContainerStatus) -> Style:
    """Return how bad it is that the floor is where it is."""
    if container.floor_bytes >= container.high_bytes:
        return Style.BAD
    return Style.WORRY if container.floor_bytes >= container.retire_bytes else Style.GOOD


def draw_bar(container: ContainerStatus, cells: int) -> str:
    """Return a bar of so many cells and its brackets; nothing where it would tell nothing."""
    if cells < LEAST_BAR:
        return ""
    limit = max(container.limit_bytes, 1)
    filled = min(cells, round(cells * container.floor_bytes / limit))
    bar = list("#" * filled + "." * (cells - filled))
    for level in (container.retire_bytes, container.high_bytes, container.hard_bytes):
        bar[min(cells - 1, cells * level // limit)] = "|"
    return f"[{''.join(bar)}]"


def draw_browsers(browsers: BrowserStatus) -> Row:
    """Return the row of browsers: what is used and was reaped, and what is wrong where something is."""
    kept = f" ({browsers.kept} kept)" if browsers.kept else ""
    wrong = {
        "runaway": browsers.runaway,
        "orphaned": browsers.orphans,
        "left over": browsers.leftovers,
        "defunct": browsers.defunct,
        "strangers": browsers.strangers,
    }
    told = "".join(f", {number} {kind}" for kind, number in wrong.items() if number)
    return Row(
        Rank.FIGURES,
        (
            Span(f"{'browsers':{INDENT}}{browsers.in_use} in use{kept}, {browsers.reaped} reaped so far"),
            Span(told, Style.WORRY),
        ),
    )


# What a child's row takes beside its task, which gets the rest of the width.
TAKEN = 48
LEAST_TASK = 12
LONGEST_NAME = 16


class Columns(NamedTuple):
    """The values of a child's row, from left to right: the first matter most."""

    pid: str
    task: str
    ran: str
    memory: str
    browser: str
    done: str
    age: str


HEADER = Columns("PID", "TASK", "FOR", "MEMORY", "BROWSER", "DONE", "AGE")


def draw_pools(pools: Mapping[str, PoolStatus], chosen: str | None, width: int) -> Iterator[Row]:
    """Yield the rows of all pools."""
    if any(pool.children for pool in pools.values()):
        yield Row(Rank.CHILD, line(place(HEADER, width), Style.FAINT))
    name_width = min(max(map(len, pools), default=0), LONGEST_NAME)
    state_width = max((len(tell_state(pool)) for pool in pools.values()), default=0)
    for name, pool in pools.items():
        is_chosen = name == chosen
        mark = "> " if is_chosen else "  "
        title = pad(cut_middle(clean(name), name_width), name_width)
        yield Row(
            Rank.CHOSEN if is_chosen else Rank.POOL,
            (
                Span(f"{mark}{title}", Style.CHOSEN if is_chosen else Style.STRONG),
                Span(f"  {tell_state(pool):{state_width}}  ", judge_state(pool)),
                *draw_work(pool),
            ),
        )
        yield from draw_handoff(pool)
        for child in sorted(pool.children, key=sort_key):
            yield Row(rank_child(child, is_chosen=is_chosen), draw_child(child, width))
        yield Row(Rank.DETAIL, line(f"  {tell_recycles(pool)}", Style.FAINT))


def tell_state(pool: PoolStatus) -> str:
    """Return a pool's state, in capitals where it takes no tasks: colour may not be had."""
    if pool.state is not PoolState.RUNNING:
        return pool.state.upper()
    return "ON HOLD" if pool.holding else "running"


def judge_state(pool: PoolStatus) -> Style:
    """Return how bad a pool's state is."""
    if pool.state is PoolState.RUNNING:
        return Style.WORRY if pool.holding else Style.GOOD
    return Style.WORRY if pool.state.is_changing else Style.BAD


def draw_work(pool: PoolStatus) -> Line:
    """Return the rest of a pool's row: what it does and what waits."""
    busy = sum(child.task is not None for child in pool.children)
    depth = "?" if pool.queue_depth is None else pool.queue_depth
    waits = bool(pool.queue_depth) and busy < pool.concurrency
    return (
        Span(f"{busy:>3} of {pool.concurrency} busy  "),
        Span(f"{depth:>5} waiting", Style.STRONG if waits else Style.PLAIN),
        Span(f"  {clean(','.join(pool.queues))}"),
    )


def draw_handoff(pool: PoolStatus) -> Iterator[Row]:
    """Yield a row for each worker beside the one that serves the pool."""
    if pool.successor is not None:
        told = f"{pool.successor.slot} starts to take over from {pool.slot}"
        yield Row(Rank.CHOSEN_CHILD, line(f"  {told}", Style.WORRY))
    for former in pool.draining:
        tasks = clean(", ".join(former.tasks)) or "no task any more"
        yield Row(Rank.CHOSEN_CHILD, line(f"  {former.slot} drains: {tasks}", Style.WORRY))


def sort_key(child: ChildStatus) -> tuple[bool, float, int]:
    """Return what sorts the child first whose task has run longest, and the idle ones last."""
    return child.task is None, -(child.task_seconds or 0), child.pid


def rank_child(child: ChildStatus, *, is_chosen: bool) -> Rank:
    """Return what a child's row is worth."""
    if child.task is None:
        return Rank.DETAIL
    return Rank.CHOSEN_CHILD if is_chosen else Rank.CHILD


def draw_child(child: ChildStatus, width: int) -> Line:
    """Return a child's row."""
    row = Columns(
        pid=str(child.pid),
        task=clean(child.task) if child.task is not None else "idle",
        ran=format_age(child.task_seconds) if child.task_seconds is not None else "",
        memory=format_bytes(child.tree_bytes),
        browser=format_bytes(child.tree_browser_bytes) if child.tree_browser_bytes else "-",
        done=str(child.tasks_done),
        age=format_age(child.age_seconds),
    )
    return line(place(row, width), Style.FAINT if child.task is None else Style.PLAIN)


def place(row: Columns, width: int) -> str:
    """Return a row with each value in its column; in a narrow window the last are out of it."""
    task_width = max(LEAST_TASK, width - TAKEN)
    return (
        f"{row.pid:>9} {pad(cut_middle(row.task, task_width), task_width)} {row.ran:>6} {row.memory:>8} "
        f"{row.browser:>8} {row.done:>5} {row.age:>6}"
    )


def tell_recycles(pool: PoolStatus) -> str:
    """Say how often children were replaced, and why."""
    reasons = sorted(pool.recycles.items(), key=lambda item: -item[1])
    told = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
    return f"{pool.max_tasks_per_child} tasks per child; recycles: {told}"


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
