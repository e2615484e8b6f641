"""verdicts: not a benchmark; which figures of two sides differ for certain, and which way is the better one."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from benchmarks.contract import LEAST_COVERAGE, Interval, median_interval
from benchmarks.report import BoundRow, Closing, Report

Better = Literal["higher", "lower"]
Verdict = Literal["worse", "better", "same", "unsure", "-"]

# A change of theirs is none of ours.
PEERS = ("celery", "supervisord-memmon", "circus", "tini", "raw Selenium", "Selenium's defaults")
# A number and what it counts ("8 MiB") only describe what was measured.
QUANTITY = r"\b\d[\d.]* \S+"
# How a unit looks in a name, which way is the better one, what a worse and a better figure are called.
Unit = tuple[str, Better, str, str]
UNITS: tuple[Unit, ...] = (
    (r"\b(per second|per minute|rates?|throughput)\b", "higher", "slower", "faster"),
    (r"\bratios?\b", "higher", "worse", "better"),
    (r"\b(seconds?|ms|(?<!['’])s)\b", "lower", "slower", "faster"),
    (r"\b(bytes|[KMG]i?B)\b", "lower", "larger", "smaller"),
    (r"\bpercent\b|%", "lower", "worse", "better"),
)


@dataclass(frozen=True)
class Figure:
    """One figure of a run; `interval` where the run took it more than once."""

    value: float
    better: Better | None
    interval: Interval | None = None
    bounded: bool = False


@dataclass(frozen=True)
class Difference:
    """One figure of two sides: B by A, with the interval of that."""

    benchmark: str
    name: str
    before: float
    after: float
    ratio: Interval | None
    verdict: Verdict
    bounded: bool

    @property
    def word(self) -> str:
        """The verdict, as one says it of such a unit."""
        if self.verdict not in {"worse", "better"}:
            return "too few values" if self.verdict == "unsure" else self.verdict
        unit = find_unit(self.name)
        return (unit[2] if self.verdict == "worse" else unit[3]) if unit else self.verdict


def list_figures(closing: Closing) -> dict[str, Figure]:
    """Return every figure of a run by its name: those that have bounds first."""
    bounds = {**closing.goal, **closing.required}
    values = {name: row.value for name, row in bounds.items()} | dict(flatten(closing.figures))
    values |= {name: row.median for name, row in closing.samples.items()}
    figures = {}
    for name, value in values.items():
        bound, sample = bounds.get(name), closing.samples.get(name)
        figures[name] = Figure(
            value,
            better_way(name, bound),
            Interval(sample.median, sample.low, sample.high, sample.coverage) if sample else None,
            bound is not None,
        )
    return figures


def flatten(figures: Mapping[str, object], above: str = "") -> Iterator[tuple[str, float]]:
    """Yield the name and value of each number in there; of a list of numbers the median."""
    for key, value in figures.items():
        name = f"{above}{key}"
        if isinstance(value, Mapping):
            yield from flatten(value, f"{name}: ")
            continue
        values: list[Any] = value if isinstance(value, list) else [value]
        if values and all(is_number(each) for each in values):
            yield name, float(median(values))


def is_number(value: object) -> bool:
    """Tell whether this is a figure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def bounded_way(bound: str) -> Better | None:
    """Return which way is the better one by a bound; what has to be none at all should be less."""
    relation, _, limit = bound.partition(" ")
    if relation == ">=":
        return "higher"
    return "lower" if relation == "<=" or float(limit) == 0 else None


def better_way(name: str, bound: BoundRow | None = None) -> Better | None:
    """Return which way is the better one by a bound, else by the unit in a name; None of a peer's figure."""
    if any(part.startswith(PEERS) for part in name.split(": ")):
        return None
    if bound is not None:
        return bounded_way(bound.bound)
    unit = find_unit(name)
    return unit[1] if unit else None


def find_unit(name: str) -> Unit | None:
    """Return the unit that a name has, the innermost part's first."""
    for part in reversed(name.replace("_", " ").split(": ")):
        plain = re.sub(QUANTITY, "", part)
        for unit in UNITS:
            if re.search(unit[0], plain):
                return unit
    return None


def compare_pairs(
    benchmark: str, pairs: Sequence[tuple[Closing, Closing]], coverage: float = LEAST_COVERAGE
) -> list[Difference]:
    """Return what differs between the sides of pairs of runs, for the figures that both sides give."""
    listed = [(list_figures(before), list_figures(after)) for before, after in pairs]
    names = {name: None for before, after in listed for name in after if name in before}
    differences = []
    for name in names:
        both = [(before[name], after[name]) for before, after in listed if name in before and name in after]
        ratios = [divide(after.value, before.value) for before, after in both]
        known = [ratio for ratio in ratios if ratio is not None]
        ratio = median_interval(known, coverage) if len(known) == len(ratios) else None
        differences.append(
            Difference(
                benchmark,
                name,
                median(before.value for before, _ in both),
                median(after.value for _, after in both),
                ratio,
                judge(ratio, both[-1][1].better, coverage),
                both[-1][1].bounded,
            )
        )
    return differences


def compare_reports(before: Report, after: Report, names: Sequence[str] = ()) -> list[Difference]:
    """Return what differs between two files, by the intervals they hold."""
    return [
        difference
        for benchmark, entry in before.benchmarks.items()
        if benchmark in after.benchmarks and (not names or benchmark in names)
        for difference in compare_entries(benchmark, entry, after.benchmarks[benchmark])
    ]


def compare_entries(benchmark: str, before: Closing, after: Closing) -> Iterator[Difference]:
    """Yield what differs between two runs that know nothing of each other."""
    old, new = list_figures(before), list_figures(after)
    for name, figure in new.items():
        if name in old:
            ratio = divide_intervals(figure, old[name])
            verdict = judge(ratio, figure.better)
            yield Difference(benchmark, name, old[name].value, figure.value, ratio, verdict, figure.bounded)


def divide(after: float, before: float) -> float | None:
    """Return a ratio; None where a number below zero makes it mean nothing."""
    if after < 0 or before < 0:
        return None
    if before == 0:
        return 1.0 if after == 0 else math.inf
    return after / before


def divide_intervals(after: Figure, before: Figure) -> Interval | None:
    """Return B by A between the bounds that both intervals allow; without those nothing is sure of it."""
    middle = divide(after.value, before.value)
    if middle is None or after.interval is None or before.interval is None:
        return None if middle is None else Interval(middle, middle, middle, 0.0)
    low = divide(after.interval.low, before.interval.high)
    high = divide(after.interval.high, before.interval.low)
    if low is None or high is None:
        return None
    return Interval(middle, low, high, min(after.interval.coverage, before.interval.coverage))


def judge(ratio: Interval | None, better: Better | None, coverage: float = LEAST_COVERAGE) -> Verdict:
    """Return what an interval says: only one that lies wholly on one side of 1 says that anything changed."""
    if ratio is None or better is None:
        return "-"
    if ratio.coverage < coverage:
        return "unsure"
    if ratio.low <= 1 <= ratio.high:
        return "same"
    return "better" if (ratio.low > 1) == (better == "higher") else "worse"


def format_differences(differences: Sequence[Difference]) -> str:
    """Return the table; figures that are equal to the last digit and have no bound are only counted."""
    shown = [each for each in differences if each.bounded or not is_equal(each)]
    width = max((len(each.name) for each in shown), default=6)
    kind = max((len(each.benchmark) for each in shown), default=9)
    rows = [f"{'benchmark':{kind}}  {'figure':{width}} {'A':>10} {'B':>10}  {'B by A':24} verdict"]
    rows += [
        f"{each.benchmark:{kind}}  {each.name:{width}} {each.before:>10.4g} {each.after:>10.4g}  "
        f"{format_ratio(each.ratio):24} {each.word}"
        for each in shown
    ]
    if len(shown) < len(differences):
        rows.append(f"and {len(differences) - len(shown)} figures more that are equal")
    return "\n".join(rows)


def is_equal(difference: Difference) -> bool:
    """Tell whether no pair differed at all."""
    ratio = difference.ratio
    return ratio is not None and ratio.low == ratio.high == 1


def format_ratio(ratio: Interval | None) -> str:
    """Return a ratio with its interval."""
    if ratio is None:
        return "-"
    if ratio.coverage == 0:
        return f"{ratio.median:.3f}"
    return f"{ratio.median:.3f} ({ratio.low:.3f} to {ratio.high:.3f})"
