"""Progress of a storm: one live picture in a terminal, a plain line every few seconds elsewhere."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from recyclery.common.units import format_bytes
from recyclery_demo.watch import Moment

PLAIN_LINE_SECONDS = 5.0


@dataclass(frozen=True)
class Frame:
    """What stays the same in every picture of one storm."""

    manager: str
    tasks: int
    habit: str
    fast_tasks: int
    limit_bytes: int
    memory_kind: str


class Display:
    """Progress as lines of text, one every few seconds."""

    def __init__(self, frame: Frame, stream: TextIO) -> None:
        self._frame = frame
        self._stream = stream
        self._next_line_seconds = 0.0

    def say(self, text: str) -> None:
        """Show what is going on now."""
        print(text, file=self._stream, flush=True)

    def show(self, moment: Moment) -> None:
        """Print a line if the last one is old enough."""
        if moment.elapsed_seconds >= self._next_line_seconds:
            self._next_line_seconds = moment.elapsed_seconds + PLAIN_LINE_SECONDS
            self.say(plain_line(self._frame, moment))


@contextmanager
def open_display(frame: Frame, *, json: bool) -> Iterator[Display]:
    """Yield the live picture where standard output is a terminal and free, else lines."""
    if not json and sys.stdout.isatty():
        from recyclery_demo.picture import open_picture  # noqa: PLC0415

        with open_picture(frame) as picture:
            yield picture
    else:
        lines = Display(frame, sys.stderr if json else sys.stdout)
        lines.say(describe_storm(frame))
        yield lines


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
