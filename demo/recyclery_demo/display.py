"""Progress of a storm: one live picture in a terminal, a plain line every few seconds elsewhere."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from recyclery.common.units import format_bytes
from recyclery_demo.watch import Moment

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

PLAIN_LINE_SECONDS = 5.0
WIDTH = 78


@dataclass(frozen=True)
class Frame:
    """What stays the same in every picture of one storm."""

    manager: str
    tasks: int
    habit: str
    fast_tasks: int
    limit_bytes: int
    memory_kind: str


class Display(Protocol):
    """Where progress goes."""

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the last picture standing."""

    def say(self, text: str) -> None:
        """Show what is going on now."""

    def show(self, moment: Moment) -> None:
        """Show the storm."""


class PlainDisplay:
    """Lines of text, one every few seconds."""

    def __init__(self, frame: Frame, stream: TextIO) -> None:
        self._frame = frame
        self._stream = stream
        self._next_line_seconds = 0.0

    def __enter__(self) -> Self:
        self.say(describe_storm(self._frame))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """Print the text."""
        print(text, file=self._stream, flush=True)

    def show(self, moment: Moment) -> None:
        """Print a line if the last one is old enough."""
        if moment.elapsed_seconds >= self._next_line_seconds:
            self._next_line_seconds = moment.elapsed_seconds + PLAIN_LINE_SECONDS
            self.say(plain_line(self._frame, moment))


class LiveDisplay:
    """One picture that is redrawn in place."""

    def __init__(self, frame: Frame, console: "Console") -> None:
        from rich.live import Live  # noqa: PLC0415

        self._frame = frame
        self._text = "starting"
        self._moment: Moment | None = None
        self._live = Live(console=console, refresh_per_second=4, get_renderable=self._render)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def say(self, text: str) -> None:
        """Put the text on the last line of the picture."""
        self._text = text

    def show(self, moment: Moment) -> None:
        """Take the moment into the picture."""
        self._moment = moment

    def _render(self) -> "RenderableType":
        from recyclery_demo.picture import draw  # noqa: PLC0415

        return draw(self._frame, self._moment, self._text)


def make_display(frame: Frame, *, json: bool) -> Display:
    """Return the live picture where standard output is a terminal and free, else lines."""
    if json:
        return PlainDisplay(frame, sys.stderr)
    if not sys.stdout.isatty():
        return PlainDisplay(frame, sys.stdout)
    from rich.console import Console  # noqa: PLC0415

    return LiveDisplay(frame, Console(highlight=False))


def describe_storm(frame: Frame) -> str:
    """Say in one line what is about to happen."""
    return (
        f"{frame.tasks} tasks scrape, {frame.habit}; {frame.fast_tasks} are light; under {frame.manager} "
        f"in {format_bytes(frame.limit_bytes)} ({frame.memory_kind})"
    )


def plain_line(frame: Frame, moment: Moment) -> str:
    """Return the moment as one line."""
    return (
        f"{format_clock(moment.elapsed_seconds)}  {moment.done}/{frame.tasks} scraped, {moment.failed} failed"
        f" | fast {moment.pinged}/{frame.fast_tasks}, p95 {format_latency(moment.fast_p95_seconds)}"
        f" | {format_bytes(moment.usage_bytes)}, floor {format_bytes(moment.floor_bytes)}"
        f" | browsers {moment.browsers}, recycles {sum(moment.recycles.values())}, OOM kills {moment.oom_kills}"
    )


def format_clock(seconds: float) -> str:
    """Return minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def format_latency(seconds: float | None) -> str:
    """Return a short latency: 12 ms, 1.3 s, or a dash."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def format_recycles(recycles: Mapping[str, int]) -> str:
    """Return the recycles with their reasons, the most frequent first."""
    if not recycles:
        return "0"
    reasons = sorted(recycles.items(), key=lambda item: (-item[1], item[0]))
    return f"{sum(recycles.values())} ({', '.join(f'{reason} {count}' for reason, count in reasons)})"
