"""The answer for a terminal: 80 columns, and readable without colour."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator, Sequence

from recyclery.common.units import format_bytes
from recyclery.decide.queueing import Fleet
from recyclery.tune.evaluate import Judged
from recyclery.tune.progress import format_level
from recyclery.tune.recommendation import Answer
from recyclery.tune.statistics import Estimate


def short(value: float) -> str:
    """Return a figure with three digits."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def with_interval(estimate: Estimate) -> str:
    """Return a figure and how far off it may be."""
    away = max(estimate.high - estimate.value, estimate.value - estimate.low)
    return f"{short(estimate.value)} ± {short(away)}"


def seconds(value: float) -> str:
    """Return a time in the unit that keeps it readable."""
    return f"{value * 1000:.0f} ms" if value < 0.9995 else f"{short(value)} s"


WIDTH = 80
HEAD = (
    f"  {'K':>3} {'N':>4} {'tasks per second':>17} {'p50':>7} {'p95':>7} {'peak':>9} {'CPU':>5} "
    f"{'failed':>6} binds"
)
LEGEND = (
    "K: tasks at a time; N: tasks per child; ± the 95 % interval. p50, p95: time that tasks ran. "
    "peak: memory that no reclaim frees, the highest seen."
)
MARKS = "* recommended, - cannot be chosen."


def format_answer(answer: Answer) -> str:
    """Return the table and the answer."""
    lines = []
    if answer.levels:
        lines += [HEAD, *(level_row(judged, answer) for judged in answer.levels), ""]
        lines += [*textwrap.wrap(f"{LEGEND} {MARKS}", WIDTH), ""]
        lines += [*obstacles_of(answer)]
    lines += [*wrap(answer.reason)]
    lines += advise(answer)
    lines += [line for doubt in answer.doubts for line in ["", *wrap(doubt)]]
    return "\n".join(lines)


def obstacles_of(answer: Answer) -> Iterator[str]:
    """Yield why levels cannot be chosen."""
    refused = [judged for judged in answer.levels if judged.obstacle]
    for judged in refused:
        said = f"{format_level(judged.measured.level)}: {judged.obstacle}"
        yield from textwrap.wrap(said, WIDTH, initial_indent="- ", subsequent_indent="  ")
    if refused:
        yield ""


def level_row(judged: Judged, answer: Answer) -> str:
    """Return a measured level's line."""
    measured = judged.measured
    chosen = answer.recommended is not None and answer.recommended.measured is measured
    mark = "*" if chosen else "-" if judged.obstacle else " "
    level = (measured.level.concurrency, measured.level.max_tasks_per_child)
    if not measured.was_tried:
        return row(mark, level, ("-",) * 6, "not tried")
    speed = with_interval(measured.per_second) if measured.per_second else "-"
    p50, p95 = (seconds(measured.ran.p50), seconds(measured.ran.p95.value)) if measured.ran else ("-", "-")
    busy = f"{measured.cpu_share:.0%}" if measured.done else "-"
    return row(
        mark,
        level,
        (speed, p50, p95, format_bytes(measured.highest_floor_bytes), busy, str(measured.errors)),
        judged.binds,
    )


def row(mark: str, level: tuple[int, int], cells: Sequence[str], binds: str) -> str:
    """Return one line of the table."""
    speed, p50, p95, peak, busy, failed = cells
    return (
        f"{mark} {level[0]:>3} {level[1]:>4} {speed:>17} {p50:>7} {p95:>7} {peak:>9} {busy:>5} "
        f"{failed:>6} {binds}"
    )


def advise(answer: Answer) -> Iterator[str]:
    """Yield what to set, and how many containers the load needs."""
    if answer.recommended is not None:
        yield from ("", *indent(answer.recommended.conf.splitlines()), "", "or in the environment:", "")
        yield from indent(f"{name}={value}" for name, value in answer.recommended.environment.items())
    if answer.fleet is not None:
        yield from ("", *wrap(tell_fleet(answer.fleet)))


def tell_fleet(fleet: Fleet) -> str:
    """Say how many containers the arrivals need."""
    count = "1 container" if fleet.containers == 1 else f"{fleet.containers} containers"
    return (
        f"{short(fleet.arrivals_per_second)} tasks a second need {count} of this kind: "
        f"{fleet.busy_share:.0%} busy, a mean wait of {seconds(fleet.wait_seconds)}, "
        f"95 % done {seconds(fleet.p95_seconds)} after they came."
    )


def indent(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines as something to copy."""
    return (f"    {line}" if line else "" for line in lines)


def wrap(text: str) -> list[str]:
    """Return a sentence in lines."""
    return textwrap.wrap(text, WIDTH)
