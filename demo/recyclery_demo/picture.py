"""The live picture itself, in rich."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from recyclery.common.units import format_bytes
from recyclery_demo.display import WIDTH, Frame, format_clock, format_latency, format_recycles
from recyclery_demo.watch import Moment

_BAR_WIDTH = 30
# Above this share of the limit memory is shown as a worry: where Recyclery holds the slow queue.
_HIGH_SHARE = 0.90


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
        width=WIDTH,
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
        "browsers",
        f"{moment.browsers} running, {moment.reaped} orphans reaped, {moment.defunct} defunct",
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
