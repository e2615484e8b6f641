"""Two runs side by side: what each level does in B for one in A, and whether that is more than noise."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from recyclery.tune.levels import measure_levels
from recyclery.tune.spec import Level
from recyclery.tune.statistics import Estimate, Times
from recyclery.tune.table import short
from recyclery.tune.window import Window

FIGURES = ("per_second", "p95_seconds", "peak_floor_bytes")
HEAD = f"{'K':>3} {'N':>4} {'throughput':>24} {'p95':>24} {'peak memory':>21}"

LEGEND = (
    "B by A, with the 95 % interval; = where that may as well be noise. Of twenty ratios without "
    "that sign one may have lost it by chance."
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """B by A, with its interval; noise where that has 1 in it."""

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether the two may as well be the same."""
        return self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True)
class Pair:
    """A level of both runs; a figure that one of them lacks is None."""

    level: Level
    repeats: tuple[int, int]
    """How often each ran it."""
    per_second: Ratio | None
    p95_seconds: Ratio | None
    peak_floor_bytes: Ratio | None


def compare_runs(before: Sequence[Window], after: Sequence[Window]) -> list[Pair]:
    """Return the levels that both runs have."""
    ones = {one.level: one for one in measure_levels(before)}
    others = {other.level: other for other in measure_levels(after)}
    return [
        Pair(
            level,
            (ones[level].repeats, others[level].repeats),
            divide(others[level].per_second, ones[level].per_second),
            divide(p95_of(others[level].ran), p95_of(ones[level].ran)),
            divide(others[level].peak_floor_bytes, ones[level].peak_floor_bytes),
        )
        for level in sorted(ones.keys() & others.keys())
    ]


def p95_of(times: Times | None) -> Estimate | None:
    """Return the estimate of p95."""
    return times.p95 if times else None


def divide(after: Estimate | None, before: Estimate | None) -> Ratio | None:
    """Return the ratio of two figures that are independent of each other."""
    if after is None or before is None or not before.low or not after.low:
        return None
    value = after.value / before.value
    up = math.hypot(math.log(after.high / after.value), math.log(before.value / before.low))
    down = math.hypot(math.log(after.value / after.low), math.log(before.high / before.value))
    return Ratio(value, value * math.exp(-down), value * math.exp(up))


def format_comparison(pairs: Sequence[Pair], names: tuple[str, str]) -> str:
    """Return the table."""
    head = [f"A: {names[0]}", f"B: {names[1]}", ""]
    if not pairs:
        return "\n".join([*head, "The runs have no level in common: nothing can be compared."])
    rows = [
        f"{pair.level.concurrency:>3} {pair.level.max_tasks_per_child:>4} {cell(pair.per_second):>24} "
        f"{cell(pair.p95_seconds):>24} {cell(pair.peak_floor_bytes):>21}"
        for pair in pairs
    ]
    return "\n".join([*head, HEAD, *rows, "", *textwrap.wrap(f"{LEGEND}{tell_unrepeated(pairs)}", 80)])


def tell_unrepeated(pairs: Sequence[Pair]) -> str:
    """Say which runs have no level more than once: their intervals are of the tasks alone."""
    counts = zip(*(pair.repeats for pair in pairs), strict=True)
    once = [name for name, repeats in zip("AB", counts, strict=True) if max(repeats) < 2]
    if not once:
        return ""
    return f" {' and '.join(once)} ran each level once: what repeats differ by is not in the intervals."


def comparison_document(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Return the pairs as `--json` prints them."""
    return [
        {
            **msgspec.to_builtins(pair.level),
            **{
                name: {**msgspec.to_builtins(ratio), "is_noise": ratio.is_noise} if ratio else None
                for name in FIGURES
                for ratio in [getattr(pair, name)]
            },
        }
        for pair in pairs
    ]


def cell(ratio: Ratio | None) -> str:
    """Return a ratio and its interval."""
    if ratio is None:
        return "-"
    mark = " =" if ratio.is_noise else ""
    return f"{short(ratio.value)} ({short(ratio.low)}-{short(ratio.high)}){mark}"
