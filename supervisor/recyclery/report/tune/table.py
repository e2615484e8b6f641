"""The answer for a terminal: 80 columns, and readable without colour."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from recyclery.common.units import format_bytes
from recyclery.report.tune.figures import seconds, short, with_interval
from recyclery.report.tune.progress import format_level
from recyclery.tune.answer import Answer
from recyclery.tune.fitting import Refused
from recyclery.tune.judge import Judged
from recyclery.tune.predict import Prediction
from recyclery.tune.queueing import Fleet
from recyclery.tune.throughput import Throughput

WIDTH = 80
HEAD = (
    f"  {'K':>3} {'N':>4} {'tasks per second':>17} {'p50':>7} {'p95':>7} {'peak':>9} {'CPU':>5} "
    f"{'failed':>6} binds"
)
LEGEND = (
    "K: tasks at a time; N: tasks per child; ± the 95 % interval. p50, p95: time that tasks ran. "
    "peak: memory that no reclaim frees, the highest seen."
)
MARKS = "* recommended, ~ predicted and not run, - cannot be chosen."


def format_answer(answer: Answer) -> str:
    """Return the table and the answer."""
    lines = []
    if answer.levels:
        lines += [HEAD, *rows_of(answer), "", *textwrap.wrap(f"{LEGEND} {MARKS}", WIDTH), ""]
        lines += [*obstacles_of(answer)]
    lines += [*wrap(answer.reason)]
    lines += advise(answer)
    lines += [line for doubt in answer.doubts for line in ["", *wrap(doubt)]]
    return "\n".join(lines)


def rows_of(answer: Answer) -> Iterator[str]:
    """Yield the levels in order, and between them those predicted ones that are of interest."""
    rows = {judged.measured.level: level_row(judged, answer) for judged in answer.levels}
    rows |= {one.level: prediction_row(one) for one in worth_showing(answer)}
    yield from (rows[level] for level in sorted(rows))


def obstacles_of(answer: Answer) -> Iterator[str]:
    """Yield why levels cannot be chosen."""
    refused = [judged for judged in answer.levels if judged.obstacle]
    for judged in refused:
        said = f"{format_level(judged.measured.level)}: {judged.obstacle}"
        yield from textwrap.wrap(said, WIDTH, initial_indent="- ", subsequent_indent="  ")
    if refused:
        yield ""


def worth_showing(answer: Answer) -> list[Prediction]:
    """Return the predicted levels next to the recommended one, and the one that promises more."""
    if answer.recommended is None:
        return []
    places = answer.recommended.level.concurrency
    beside = [one for one in answer.predictions if not one.was_run and one.per_second]
    wanted = [one for one in beside if abs(one.level.concurrency - places) == 1]
    if answer.next_level is not None and answer.next_level not in wanted:
        wanted.append(answer.next_level)
    return wanted


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


def prediction_row(one: Prediction) -> str:
    """Return a predicted level's line."""
    speed = with_interval(one.per_second) if one.per_second else "-"
    peak = format_bytes(round(one.peak_floor_bytes.value)) if one.peak_floor_bytes else "-"
    level = (one.level.concurrency, one.level.max_tasks_per_child)
    return row("~", level, (speed, "-", "-", peak, "-", "-"), "predicted")


def row(mark: str, level: tuple[int, int], cells: Sequence[str], binds: str) -> str:
    """Return one line of the table."""
    speed, p50, p95, peak, busy, failed = cells
    return (
        f"{mark} {level[0]:>3} {level[1]:>4} {speed:>17} {p50:>7} {p95:>7} {peak:>9} {busy:>5} "
        f"{failed:>6} {binds}"
    )


def advise(answer: Answer) -> Iterator[str]:
    """Yield what to set, what else is worth a run, how many containers the load needs, and the law."""
    if answer.recommended is not None:
        yield from ("", *indent(answer.recommended.conf.splitlines()), "", "or in the environment:", "")
        yield from indent(f"{name}={value}" for name, value in answer.recommended.environment.items())
    for sentence in (tell_next(answer.next_level), tell_fleet(answer.fleet), tell_law(answer.throughput)):
        if sentence:
            yield from ("", *wrap(sentence))


def tell_next(following: Prediction | None) -> str:
    """Say which level not run promises more."""
    if following is None or following.per_second is None:
        return ""
    speed = following.per_second
    return (
        f"Worth a run: concurrency {following.level.concurrency}, predicted to do {short(speed.value)} "
        f"tasks a second ({short(speed.low)} to {short(speed.high)})."
    )


def tell_fleet(fleet: Fleet | None) -> str:
    """Say how many containers the arrivals need."""
    if fleet is None:
        return ""
    count = "1 container" if fleet.containers == 1 else f"{fleet.containers} containers"
    return (
        f"{short(fleet.arrivals_per_second)} tasks a second need {count} of this kind: "
        f"{fleet.busy_share:.0%} busy, a mean wait of {seconds(fleet.wait_seconds)}, "
        f"95 % done {seconds(fleet.p95_seconds)} after they came."
    )


def tell_law(law: Throughput | Refused) -> str:
    """Say how throughput scales."""
    if isinstance(law, Refused):
        return ""
    return (
        f"Universal scalability law: {short(law.alone_per_second)} tasks a second alone, contention "
        f"{law.contention:.2f}, coherence {law.coherence:.4f}; it misses levels left out of the fit by "
        f"{law.fit.left_out_error:.0%}."
    )


def indent(lines: Iterable[str]) -> Iterator[str]:
    """Yield the lines as something to copy."""
    return (f"    {line}" if line else "" for line in lines)


def wrap(text: str) -> list[str]:
    """Return a sentence in lines."""
    return textwrap.wrap(text, WIDTH)
