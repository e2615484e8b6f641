"""A recommendation as a table of 80 columns for a terminal, and as JSON."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from recyclery.common.units import format_bytes
from recyclery.tune.evaluate import LevelResult
from recyclery.tune.recommendation import Recommendation
from recyclery.tune.statistics import Estimate, quantile
from recyclery.tune.window import OpenLoopWindow

DOCUMENT_VERSION = 2
TEXT_WIDTH = 80
TABLE_COLUMNS = {"K": 3, "N": 4, "tasks per second": 17, "p50": 7, "p95": 7, "peak": 9, "CPU": 5, "failed": 6}
TABLE_LEGEND = (
    "K: tasks at a time; N: tasks per child; ± the 95 % interval. p50, p95: time that tasks ran. "
    "peak: unreclaimable memory, the highest seen. bottleneck: what kept tasks from doing more."
)
MARKS_LEGEND = "* recommended, - cannot be chosen."


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


def format_figures(result: LevelResult) -> dict[str, str]:
    """Return a level's figures by column; a dash for what is not known."""
    ran = result.ran
    level = {"K": str(result.level.concurrency), "N": str(result.level.max_tasks_per_child)}
    figures = {
        "tasks per second": with_interval(result.per_second) if result.per_second else "-",
        "p50": seconds(ran.p50) if ran else "-",
        "p95": seconds(ran.p95.value) if ran else "-",
        "p99": seconds(ran.p99) if ran else "-",
        "peak": format_bytes(result.highest_floor_bytes),
        "a child": format_bytes(result.child_peak_bytes),
        "CPU": f"{result.cpu_share:.0%}" if result.done else "-",
        "failed": str(result.errors),
        "recycled": str(sum(result.recycles.values())),
    }
    return level | (figures if result.was_tried else dict.fromkeys(figures, "-"))


def format_recommendation(found: Recommendation) -> str:
    """Return the table and the recommendation."""
    lines = []
    if found.levels:
        rejected = [result for result in found.levels if result.rejection]
        lines += [format_row(" ", {name: name for name in TABLE_COLUMNS}, "bottleneck")]
        for result in found.levels:
            chosen = found.settings is not None and found.settings.result is result
            mark = "*" if chosen else "-" if result.rejection else " "
            bottleneck = result.bottleneck if result.was_tried else "not tried"
            lines += [format_row(mark, format_figures(result), bottleneck)]
        lines += ["", *textwrap.wrap(f"{TABLE_LEGEND} {MARKS_LEGEND}", TEXT_WIDTH), ""]
        for result in rejected:
            text = f"{result.level}: {result.rejection}"
            lines += textwrap.wrap(text, TEXT_WIDTH, initial_indent="- ", subsequent_indent="  ")
        lines += [""] if rejected else []
    lines += textwrap.wrap(found.explanation, TEXT_WIDTH)
    if found.settings is not None:
        variables = [f"{name}={value}" for name, value in found.settings.environment.items()]
        for block in (found.settings.conf.splitlines(), ["or in the environment:"], variables):
            indent = "" if len(block) == 1 else "    "
            lines += ["", *(f"{indent}{line}".rstrip() for line in block)]
    for sentence in sentences_of(found):
        lines += ["", *textwrap.wrap(sentence, TEXT_WIDTH)]
    return "\n".join(lines)


def format_row(mark: str, figures: dict[str, str], bottleneck: str) -> str:
    """Return one line of the table."""
    cells = " ".join(f"{figures[name]:>{width}}" for name, width in TABLE_COLUMNS.items())
    return f"{mark} {cells} {bottleneck}"


def sentences_of(found: Recommendation) -> Iterator[str]:
    """Yield the sentences below the table: how many containers the arrivals need, and the caveats."""
    if (fleet := found.fleet) is not None:
        count = "1 container" if fleet.containers == 1 else f"{fleet.containers} containers"
        yield (
            f"{short(fleet.arrivals_per_second)} tasks a second need {count} of this kind: "
            f"{fleet.busy_share:.0%} busy, a mean wait of {seconds(fleet.wait_seconds)}, "
            f"95 % done {seconds(fleet.p95_seconds)} after they came."
        )
    yield from found.caveats


def format_loads(opened: Iterable[OpenLoopWindow]) -> list[str]:
    """Return a table of the loads, and of how the level coped with them."""
    rows = [f"{'load':>8} {'came':>10}{'p50':>9}{'p95':>9}{'p99':>9}  not done half way, at the end"]
    for each in opened:
        pairs = zip(each.window.waited_seconds, each.window.ran_seconds, strict=True)
        took = sorted(waited + ran for waited, ran in pairs)
        times = [seconds(quantile(took, share)) if took else "-" for share in (0.50, 0.95, 0.99)]
        figures = "".join(f"{time:>9}" for time in times)
        rows.append(f"{each.load:>8} {each.offered_per_second:>8.3g}/s{figures}  {format_backlog(each)}")
    legend = "Tasks that came at their own times; p50, p95, p99 from when each was due."
    return ["", *rows, "", legend] if len(rows) > 1 else []


def format_backlog(opened: OpenLoopWindow) -> str:
    """Return how many tasks were waiting or running."""
    if opened.window.stopped:
        return f"given up: {opened.window.stopped}"
    waiting = f"{opened.backlog_middle}, {opened.backlog_end}"
    if opened.keeps_up:
        return waiting
    never = f", {opened.unfinished} never" if opened.unfinished else ""
    return f"{waiting}{never}: more than it can do"


def print_json(document: object) -> None:
    """Print a document in one line; an infinite bound is null."""
    print(msgspec.json.encode(document).decode())


def build_document(found: Recommendation) -> dict[str, Any]:
    """Return what `--json` prints of a run: bytes and seconds, null where nothing is known."""
    levels = [
        {
            **msgspec.to_builtins(result.level),
            **msgspec.to_builtins(result),
            "bottleneck": result.bottleneck if result.was_tried else None,
            "rejection": result.rejection or None,
        }
        for result in found.levels
    ]
    for document in levels:
        del document["level"]
    settings = found.settings and {
        **msgspec.to_builtins(found.settings.level),
        "memory_limit_bytes": found.settings.memory_limit_bytes,
        "conf": found.settings.conf,
        "environment": found.settings.environment,
    }
    return {
        "version": DOCUMENT_VERSION,
        "objective": found.objective,
        "limit_bytes": found.limit_bytes,
        "levels": levels,
        "recommended": settings,
        "explanation": found.explanation,
        "fleet": found.fleet,
        "caveats": found.caveats,
    }
