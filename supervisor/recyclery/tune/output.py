"""A recommendation, and two runs side by side: as tables of 80 columns for a terminal, and as JSON."""

import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from recyclery.common.units import format_bytes
from recyclery.tune.evaluate import LevelResult, summarize_levels
from recyclery.tune.recommendation import Recommendation
from recyclery.tune.run_file import read_run_file
from recyclery.tune.spec import Level
from recyclery.tune.statistics import Estimate, quantile
from recyclery.tune.window import OpenLoopWindow, Window

DOCUMENT_VERSION = 2
TEXT_WIDTH = 80
TABLE_COLUMNS = {"K": 3, "N": 4, "tasks per second": 17, "p50": 7, "p95": 7, "peak": 9, "CPU": 5, "failed": 6}
TABLE_LEGEND = (
    "K: tasks at a time; N: tasks per child; ± the 95 % interval. p50, p95: time that tasks ran. "
    "peak: unreclaimable memory, the highest seen. bottleneck: what kept tasks from doing more."
)
MARKS_LEGEND = "* recommended, - cannot be chosen."
RATIO_LEGEND = (
    "B divided by A, with the 95 % interval; = where that may as well be noise. Of twenty ratios without "
    "that sign one may have lost it by chance."
)


def short(value: float) -> str:
    """Return a figure with three digits."""
    if not math.isfinite(value):
        return "?"
    return f"{value:.0f}" if abs(value) >= 99.95 else f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def with_interval(estimate: Estimate) -> str:
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


def print_comparison(before: Path, after: Path, *, as_json: bool) -> None:
    """Print the differences between two runs; raises TuningFailed."""
    runs = read_run_file(before), read_run_file(after)
    tasks = [(run.spec.app, run.spec.task, run.spec.pool) for run in runs]
    if tasks[0] != tasks[1]:
        print(f"recyclery: they ran different tasks: {tasks[0]} and {tasks[1]}", file=sys.stderr)
    pairs = compare_runs(runs[0].windows, runs[1].windows)
    if as_json:
        print_json(comparison_document(pairs))
    else:
        print(format_ratios(pairs, (str(before), str(after))))


@dataclass(frozen=True, slots=True)
class Ratio:
    """B divided by A, with its interval; noise where that includes 1."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the two may as well be the same."""
        return self.low <= 1 <= self.high

    def __str__(self) -> str:
        mark = " =" if self.is_noise else ""
        return f"{short(self.value)} ({short(self.low)}-{short(self.high)}){mark}"


class Pair(NamedTuple):
    """A level of both runs."""

    level: Level
    repeats: tuple[int, int]
    """How often each ran it."""
    ratios: dict[str, Ratio | None]
    """By figure; None where one of them lacks it."""


def compare_runs(before: Sequence[Window], after: Sequence[Window]) -> list[Pair]:
    """Return the levels that both runs have."""
    ones, others = ({one.level: one for one in summarize_levels(windows)} for windows in (before, after))
    pairs = []
    for level in sorted(ones.keys() & others.keys()):
        one, other = ones[level], others[level]
        ratios = {
            "per_second": divide(other.per_second, one.per_second),
            "p95_seconds": divide(other.ran.p95, one.ran.p95) if other.ran and one.ran else None,
            "peak_floor_bytes": divide(other.peak_floor_bytes, one.peak_floor_bytes),
        }
        pairs.append(Pair(level, (one.repeats, other.repeats), ratios))
    return pairs


def divide(after: Estimate | None, before: Estimate | None) -> Ratio | None:
    """Return the ratio of two figures that are independent of each other."""
    if after is None or before is None or not before.low or not after.low:
        return None
    value = after.value / before.value
    up = math.hypot(math.log(after.high / after.value), math.log(before.value / before.low))
    down = math.hypot(math.log(after.value / after.low), math.log(before.high / before.value))
    return Ratio(value, value * math.exp(-down), value * math.exp(up))


def format_ratios(pairs: Sequence[Pair], names: tuple[str, str]) -> str:
    head = [f"A: {names[0]}", f"B: {names[1]}", ""]
    if not pairs:
        return "\n".join([*head, "The runs have no level in common: nothing can be compared."])
    cells = [("K", "N", "throughput", "p95", "peak memory")]
    for pair in pairs:
        level = (str(pair.level.concurrency), str(pair.level.max_tasks_per_child))
        speed, p95, peak = (str(ratio or "-") for ratio in pair.ratios.values())
        cells.append((*level, speed, p95, peak))
    rows = [f"{k:>3} {n:>4} {speed:>24} {p95:>24} {peak:>21}" for k, n, speed, p95, peak in cells]
    legend = RATIO_LEGEND
    counts = zip(*(pair.repeats for pair in pairs), strict=True)
    if once := [name for name, repeats in zip("AB", counts, strict=True) if max(repeats) < 2]:
        legend += f" {' and '.join(once)} ran each level once: what repeats differ by is not in the intervals."
    return "\n".join([*head, *rows, "", *textwrap.wrap(legend, TEXT_WIDTH)])


def comparison_document(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as `--json` prints them."""
    return [
        msgspec.to_builtins(pair.level)
        | {
            name: ratio and msgspec.to_builtins(ratio) | {"is_noise": ratio.is_noise}
            for name, ratio in pair.ratios.items()
        }
        for pair in pairs
    ]
