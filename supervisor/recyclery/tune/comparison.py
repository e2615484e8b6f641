"""Two runs side by side: for each level the ratio of B to A, and whether that is more than noise."""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from recyclery.tune.evaluate import summarize_levels
from recyclery.tune.output import TEXT_WIDTH, print_json, short
from recyclery.tune.run_file import read_run_file
from recyclery.tune.spec import Level
from recyclery.tune.statistics import Estimate
from recyclery.tune.window import Window

RATIO_LEGEND = (
    "B divided by A, with the 95 % interval; = where that may as well be noise. Of twenty ratios without "
    "that sign one may have lost it by chance."
)


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
        """Return it with its interval."""
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
    """Return the table."""
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
        {
            **msgspec.to_builtins(pair.level),
            **{
                name: {**msgspec.to_builtins(ratio), "is_noise": ratio.is_noise} if ratio else None
                for name, ratio in pair.ratios.items()
            },
        }
        for pair in pairs
    ]
