"""Lays out the lines of a frame; rows of lower rank are left out of a small window. Pure."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_bytes
from recyclery.control.status_schema import (
    BrowserStatus,
    ChildStatus,
    ContainerStatus,
    Event,
    PoolStatus,
    Problem,
    Status,
    describe_handover,
    find_status_problems,
)
from recyclery.top.text import (
    Style,
    StyledLine,
    TextSpan,
    cut_line,
    cut_middle,
    format_age,
    line,
    pad,
    printable,
)
from recyclery.top.view import MESSAGE_SECONDS, ReapBrowsers, RecyclePool, View

LABEL_WIDTH = 10
MIN_BAR_WIDTH = 10
# The columns of a child's row besides its task, which gets the rest of the width.
CHILD_COLUMNS_WIDTH = 48
MIN_TASK_WIDTH = 12
MAX_POOL_WIDTH = 16
EVENT_INDENT = 12
MIN_EVENT_WIDTH = 20
MAX_EVENT_LINES = 3
# Lines of events that rank above idle children; the rest is shown only if there is room.
HIGH_RANK_EVENT_LINES = 6
# Problems that are shown in any window.
HIGH_RANK_PROBLEMS = 4
# A healthy governor answers faster, on a busy machine too.
LATE_ANSWER_SECONDS = 4.0
KEYS_HELP = "q quit  up/down or j/k choose a pool  r recycle it  b reap browsers  ? hide this"


# The importance of a row: rows of the last ranks are left out first.
Rank = IntEnum(
    "Rank",
    "TITLE PROBLEM MEMORY CHOSEN_POOL POOL FIGURES NEWEST_EVENT CHOSEN_CHILD CHILD EVENT SPACE DETAIL REST",
)


class Row(NamedTuple):
    """A line and its rank."""

    rank: Rank
    line: StyledLine


class Screen(NamedTuple):
    """Where and when a frame is drawn: `now` in monotonic seconds, `clock` for people."""

    width: int
    height: int
    host: str
    clock: str
    now: float


def draw_frame(view: View, screen: Screen) -> list[StyledLine]:
    """Return the lines of a live frame, which fill the screen."""
    rows = list(draw_rows(view, screen))
    room = screen.height - 1
    # The only line shows a question, else the title.
    if room < 1 and view.question is None:
        return [cut_line(rows[0].line, screen.width)]
    by_rank = sorted(range(len(rows)), key=lambda number: (rows[number].rank, number))
    kept = [rows[number].line for number in sorted(by_rank[: max(room, 0)])]
    blank = [line("")] * (room - len(kept))
    last = draw_last_line(view, screen.now, hidden=len(rows) - len(kept))
    return [cut_line(each, screen.width) for each in (*kept, *blank, last)]


def draw_page(status: Status, screen: Screen) -> list[StyledLine]:
    """Return all lines of a frame that is printed once."""
    view = View(status=status, status_at=screen.now, oom_kills_before=0)
    return [cut_line(row.line, screen.width) for row in draw_rows(view, screen)]


def draw_rows(view: View, screen: Screen) -> Iterator[Row]:
    """Yield all rows; an outdated status is faint."""
    status = view.status
    problems = find_status_problems(status, view.oom_kills_before) if status is not None else []
    silence = describe_silence(view, screen.now)
    yield Row(Rank.TITLE, draw_title(view, problems, screen, is_stale=silence is not None))
    if silence is not None:
        yield Row(Rank.PROBLEM, draw_problem(silence))
    if view.disconnected is not None:
        reason = printable(view.disconnected.reason)
        for text in textwrap.wrap(reason, max(screen.width - 3, MIN_EVENT_WIDTH)):
            yield Row(Rank.PROBLEM if status is None else Rank.REST, line(f"   {text}", Style.FAINT))
    if status is None:
        return
    for row in draw_status(status, view.chosen, problems, screen.width):
        yield row if silence is None else Row(row.rank, tuple(TextSpan(s.text, Style.FAINT) for s in row.line))


def describe_silence(view: View, now: float) -> Problem | None:
    """Return that and since when the governor does not answer; None if it does."""
    if view.disconnected is not None:
        below = "; below is how it was" if view.status is not None else ""
        since = format_age(now - view.disconnected_since)
        return Problem(f"governor away, retrying ({since}){below}", bad=True)
    if view.status is not None and now - view.status_at > LATE_ANSWER_SECONDS:
        silent = format_age(now - view.status_at)
        return Problem(f"governor has not answered for {silent}; below is how it was", bad=True)
    return None


def draw_title(view: View, problems: Sequence[Problem], screen: Screen, *, is_stale: bool) -> StyledLine:
    """Return the first line: where, when, and whether anything is wrong."""
    if view.status is None:
        verdict = TextSpan("NO NEWS" if view.disconnected else "asking the governor", Style.STRONG)
    elif is_stale:
        verdict = TextSpan("NO NEWS", Style.BAD)
    elif problems:
        verdict = TextSpan(f"{len(problems)} WRONG", Style.BAD if problems[0].bad else Style.WORRY)
    else:
        verdict = TextSpan("all is well", Style.GOOD)
    return (
        TextSpan("recyclery top  ", Style.STRONG),
        verdict,
        TextSpan(f"  {screen.clock}  {printable(screen.host)}"),
    )


def draw_problem(problem: Problem) -> StyledLine:
    """Return a problem's line; its mark shows without colour how bad it is."""
    return line(f"{'!!' if problem.bad else ' !'} {problem.text}", Style.BAD if problem.bad else Style.WORRY)


def draw_status(status: Status, chosen: str | None, problems: Sequence[Problem], width: int) -> Iterator[Row]:
    for number, problem in enumerate(problems):
        yield Row(Rank.PROBLEM if number < HIGH_RANK_PROBLEMS else Rank.EVENT, draw_problem(problem))
    yield Row(Rank.SPACE, line(""))
    yield from draw_memory(status.container, width)
    yield draw_browsers(status.browsers)
    yield Row(Rank.SPACE, line(""))
    yield from draw_pools(status.pools, chosen, width)
    yield Row(Rank.SPACE, line(""))
    yield from draw_events(status.recent, width)


def draw_memory(container: ContainerStatus, width: int) -> Iterator[Row]:
    """Yield a bar of the unreclaimable memory (the floor) with the levels marked in it, and the figures."""
    floor, limit = container.floor_bytes, max(container.limit_bytes, 1)
    levels = {"retire": container.retire_bytes, "high": container.high_bytes, "hard": container.hard_bytes}
    style = Style.GOOD
    if floor >= container.retire_bytes:
        style = Style.BAD if floor >= container.high_bytes else Style.WORRY
    figures = f"{format_bytes(floor)} of {format_bytes(container.limit_bytes)}, {floor / limit:.0%}"
    cells = width - LABEL_WIDTH - len(figures) - len("[] ")
    bar = ""
    if cells >= MIN_BAR_WIDTH:
        filled = min(cells, round(cells * floor / limit))
        marked = list("#" * filled + "." * (cells - filled))
        for level in levels.values():
            marked[min(cells - 1, cells * level // limit)] = "|"
        bar = f"[{''.join(marked)}] "
    yield Row(Rank.MEMORY, (TextSpan(f"{'memory':{LABEL_WIDTH}}"), TextSpan(f"{bar}{figures}", style)))
    marks = "".join(f"{name} {format_bytes(size)}  " for name, size in levels.items())
    kills = TextSpan(f"OOM kills {container.oom_kills}", Style.BAD if container.oom_kills else Style.PLAIN)
    yield Row(Rank.FIGURES, (TextSpan(" " * LABEL_WIDTH), TextSpan(marks), kills))
    details = (
        f"usage {format_bytes(container.usage_bytes)}, "
        f"working set {format_bytes(container.working_set_bytes)}, "
        f"unattributed {format_bytes(container.unattributed_bytes)}"
    )
    yield Row(Rank.DETAIL, line(" " * LABEL_WIDTH + details, Style.FAINT))


def draw_browsers(browsers: BrowserStatus) -> Row:
    """Return the row of browsers: in use, reaped, and what is wrong."""
    kept = f" ({browsers.kept} kept)" if browsers.kept else ""
    wrong = {
        "runaway": browsers.runaway,
        "orphaned": browsers.orphans,
        "left over": browsers.leftovers,
        "defunct": browsers.defunct,
        "strangers": browsers.strangers,
    }
    text = f"{'browsers':{LABEL_WIDTH}}{browsers.in_use} in use{kept}, {browsers.reaped} reaped so far"
    problems = "".join(f", {number} {kind}" for kind, number in wrong.items() if number)
    return Row(Rank.FIGURES, (TextSpan(text), TextSpan(problems, Style.WORRY)))


def draw_pools(pools: Mapping[str, PoolStatus], chosen: str | None, width: int) -> Iterator[Row]:
    if any(pool.children for pool in pools.values()):
        header = format_columns(("PID", "TASK", "FOR", "MEMORY", "BROWSER", "DONE", "AGE"), width)
        yield Row(Rank.CHILD, line(header, Style.FAINT))
    name_width = min(max(map(len, pools), default=0), MAX_POOL_WIDTH)
    state_width = max((len(format_state(pool)[0]) for pool in pools.values()), default=0)
    for name, pool in pools.items():
        is_chosen = name == chosen
        title = pad(cut_middle(printable(name), name_width), name_width)
        state, style = format_state(pool)
        yield Row(
            Rank.CHOSEN_POOL if is_chosen else Rank.POOL,
            (
                TextSpan(
                    f"> {title}" if is_chosen else f"  {title}", Style.CHOSEN if is_chosen else Style.STRONG
                ),
                TextSpan(f"  {state:{state_width}}  ", style),
                *draw_work(pool),
            ),
        )
        for text in describe_handover(pool):
            yield Row(Rank.CHOSEN_CHILD, line(f"  {printable(text)}", Style.WORRY))
        # The longest running task first, idle children last.
        for child in sorted(pool.children, key=lambda c: (c.task is None, -(c.task_seconds or 0), c.pid)):
            rank = Rank.CHOSEN_CHILD if is_chosen else Rank.CHILD
            yield Row(Rank.DETAIL if child.task is None else rank, draw_child(child, width))
        reasons = sorted(pool.recycles.items(), key=lambda item: -item[1])
        recycles = ", ".join(f"{count} {reason}" for reason, count in reasons) or "none"
        details = f"  {pool.max_tasks_per_child} tasks per child; recycles: {recycles}"
        yield Row(Rank.DETAIL, line(details, Style.FAINT))


def format_state(pool: PoolStatus) -> tuple[str, Style]:
    """Return a pool's state, in capitals if it takes no tasks: there may be no colours."""
    if pool.state is PoolState.RUNNING:
        return ("ON HOLD", Style.WORRY) if pool.holding else ("running", Style.GOOD)
    return pool.state.upper(), Style.WORRY if pool.state.is_changing else Style.BAD


def draw_work(pool: PoolStatus) -> StyledLine:
    """Return the rest of a pool's row: busy children, waiting tasks, queues."""
    busy = sum(child.task is not None for child in pool.children)
    depth = "?" if pool.queue_depth is None else pool.queue_depth
    is_behind = bool(pool.queue_depth) and busy < pool.concurrency
    return (
        TextSpan(f"{busy:>3} of {pool.concurrency} busy  "),
        TextSpan(f"{depth:>5} waiting", Style.STRONG if is_behind else Style.PLAIN),
        TextSpan(f"  {printable(','.join(pool.queues))}"),
    )


def draw_child(child: ChildStatus, width: int) -> StyledLine:
    columns = (
        str(child.pid),
        printable(child.task) if child.task is not None else "idle",
        format_age(child.task_seconds) if child.task_seconds is not None else "",
        format_bytes(child.tree_bytes),
        format_bytes(child.tree_browser_bytes) if child.tree_browser_bytes else "-",
        str(child.tasks_done),
        format_age(child.age_seconds),
    )
    return line(format_columns(columns, width), Style.FAINT if child.task is None else Style.PLAIN)


def format_columns(columns: Sequence[str], width: int) -> str:
    """Return the columns of a child's row, the most important ones first: a narrow window cuts the last."""
    pid, task, seconds, memory, browser, done, age = columns
    task_width = max(MIN_TASK_WIDTH, width - CHILD_COLUMNS_WIDTH)
    task = pad(cut_middle(task, task_width), task_width)
    return f"{pid:>9} {task} {seconds:>6} {memory:>8} {browser:>8} {done:>5} {age:>6}"


def draw_events(recent: Sequence[Event], width: int) -> Iterator[Row]:
    """Yield the rows of the latest events, newest first."""
    drawn = 0
    for event in recent:
        begin = f"{' ' if event.done else '!'}{format_age(event.age_seconds):>6} ago"
        for text in textwrap.wrap(
            printable(event.text),
            max(width - EVENT_INDENT - 1, MIN_EVENT_WIDTH),
            max_lines=MAX_EVENT_LINES,
            placeholder=" ..",
        ):
            rank = Rank.EVENT if drawn < HIGH_RANK_EVENT_LINES else Rank.REST
            style = Style.PLAIN if event.done else Style.WORRY
            yield Row(
                Rank.NEWEST_EVENT if drawn < MAX_EVENT_LINES else rank,
                line(f"{begin:{EVENT_INDENT}} {text}", style),
            )
            begin, drawn = "", drawn + 1


def draw_last_line(view: View, now: float, hidden: int) -> StyledLine:
    """Return the last line: a question, the outcome of an operation, or the keys."""
    match view.question:
        case RecyclePool(pool):
            question = f"recycle {pool}? a new worker takes over, running tasks are finished  y/n"
            return line(question, Style.CHOSEN)
        case ReapBrowsers():
            return line("reap? browsers that no task owns are killed now  y/n", Style.CHOSEN)
    if view.shows_help:
        return line(KEYS_HELP)
    if view.message is not None and now - view.message_at < MESSAGE_SECONDS:
        return line(printable(view.message.text), Style.BAD if view.message.bad else Style.STRONG)
    rest = f"   {hidden} lines do not fit" if hidden > 0 else ""
    return line(f"? for keys{rest}", Style.FAINT)
