"""The live picture of a storm and the table of what came of it, in rich."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recyclery.common.units import format_bytes
from recyclery_demo.display import Display, Frame, format_clock, format_latency, format_recycles
from recyclery_demo.summary import Summary, verdict
from recyclery_demo.watch import Moment

_WIDTH = 78
_BAR_WIDTH = 30
# Above this share of the limit memory is shown as a worry: where Recyclery holds the slow queue.
_HIGH_SHARE = 0.90


class LiveDisplay(Display):
    """One picture that is redrawn in place."""

    def __init__(self, frame: Frame) -> None:
        super().__init__(frame, sys.stdout)
        self._text = "starting"
        self._moment: Moment | None = None

    def say(self, text: str) -> None:
        """Put the text on the last line of the picture."""
        self._text = text

    def show(self, moment: Moment) -> None:
        """Take the moment into the picture."""
        self._moment = moment

    def __rich__(self) -> RenderableType:
        return draw(self._frame, self._moment, self._text)


@contextmanager
def open_picture(frame: Frame) -> Iterator[LiveDisplay]:
    """Show the picture; the last one is left standing."""
    picture = LiveDisplay(frame)
    with Live(picture, console=Console(highlight=False), refresh_per_second=4):
        yield picture


def draw(frame: Frame, moment: Moment | None, text: str) -> Panel:
    """Return the picture of a moment, or of the time before the first."""
    parts: list[RenderableType] = [Text(_describe(frame), style="dim"), Text()]
    if moment is not None:
        parts += [_draw_bars(frame, moment), _draw_counts(moment), Text()]
    return Panel(
        Group(*parts, Text(text, style="dim")),
        title=f"[bold]leak storm[/] under [bold]{frame.manager}[/]",
        subtitle=format_clock(moment.elapsed_seconds) if moment else None,
        title_align="left",
        subtitle_align="right",
        width=_WIDTH,
        padding=(1, 2),
        border_style="blue",
    )


def _describe(frame: Frame) -> str:
    return f"{frame.tasks} tasks scrape, {frame.habit}; {frame.fast_tasks} are light"


def _draw_bars(frame: Frame, moment: Moment) -> Table:
    high = moment.floor_bytes > _HIGH_SHARE * frame.limit_bytes
    grid = _grid()
    grid.add_column(no_wrap=True)
    grid.add_row(
        "scraped",
        _bar(moment.done, frame.tasks, "green"),
        Text(f"{moment.done}/{frame.tasks}  ") + _counted(moment.failed, " failed"),
    )
    grid.add_row(
        "light",
        _bar(moment.pinged, frame.fast_tasks, "cyan"),
        f"{moment.pinged}/{frame.fast_tasks}  p95 {format_latency(moment.fast_p95_seconds)}",
    )
    grid.add_row(
        "memory",
        _bar(moment.floor_bytes, frame.limit_bytes, "red" if high else "blue"),
        f"{format_bytes(moment.floor_bytes)} of {format_bytes(frame.limit_bytes)}",
    )
    return grid


def _draw_counts(moment: Moment) -> Table:
    grid = _grid()
    grid.add_row("OOM kills", _counted(moment.oom_kills))
    grid.add_row(
        "browsers", f"{moment.browsers} running, {moment.reaped} orphans reaped, {moment.defunct} defunct"
    )
    grid.add_row("recycles", format_recycles(moment.recycles))
    return grid


def _grid() -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(width=9, style="bold")
    grid.add_column()
    return grid


def _bar(completed: float, total: float, style: str) -> ProgressBar:
    return ProgressBar(
        total=max(total, 1), completed=completed, width=_BAR_WIDTH, complete_style=style, finished_style=style
    )


def _counted(count: int, name: str = "") -> Text:
    """Return a count that should stay 0."""
    return Text(f"{count}{name}", style="bold red" if count else "")


def print_summary(summary: Summary) -> None:
    """Print the table and the verdict."""
    console = Console(highlight=False)
    console.print(make_table(summary))
    console.print(verdict(summary), style="bold green" if summary.exit_status() == 0 else "bold red")


def make_table(summary: Summary) -> Table:
    """Return the figures as a table for people."""
    table = Table(
        box=box.SIMPLE, show_header=False, title=f"leak storm under {summary.manager}", title_justify="left"
    )
    table.add_column(style="bold")
    table.add_column()
    for name, value, bad in _rows(summary):
        table.add_row(name, value, style="red" if bad else None)
    return table


def _rows(summary: Summary) -> list[tuple[str, str, bool]]:
    undone = summary.succeeded != summary.tasks
    return [
        ("tasks done", f"{summary.succeeded} of {summary.tasks} in {format_clock(summary.seconds)}", undone),
        ("failed", str(summary.failed), summary.failed > 0),
        ("lost", str(summary.lost), summary.lost > 0),
        ("still queued", str(summary.queued), summary.queued > 0),
        ("done twice", str(summary.duplicates), False),
        (
            "light tasks done",
            f"{summary.fast_succeeded} of {summary.fast_tasks}, p95 {format_latency(summary.fast_p95_seconds)}",
            summary.fast_succeeded != summary.fast_tasks,
        ),
        ("OOM kills", str(summary.oom_kills), summary.oom_kills > 0),
        (
            "memory peak",
            f"{format_bytes(summary.peak_bytes)} of {format_bytes(summary.limit_bytes)} ({summary.memory}), "
            f"{format_bytes(summary.peak_floor_bytes)} without page cache",
            False,
        ),
        ("recycles", format_recycles(summary.recycles), False),
        ("orphans reaped", str(summary.orphans_reaped), False),
        ("browsers leaked", str(summary.leaked_browsers), summary.leaked_browsers > 0),
        ("defunct left", str(summary.defunct_left), summary.defunct_left > 0),
        ("processes left", str(summary.processes_left), summary.processes_left > 0),
        ("exit of PID 1", str(summary.exit), summary.exit != 0),
    ]
