"""contract: not a benchmark; the bounds and samples of each, and how it ends: a table and one line of JSON."""

from __future__ import annotations

import json
import math
import operator
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

HOLDS = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}
# The exit status of a benchmark that lacks something here (Docker, a cgroup, Chromium), as automake has it.
CANNOT_RUN = 77
# An interval with a smaller chance to hold the median decides nothing: it takes five values.
LEAST_COVERAGE = 0.9


@dataclass(frozen=True)
class Interval:
    """The median of some values, and bounds that the true one lies between with a chance of `coverage`."""

    median: float
    low: float
    high: float
    coverage: float


def median_interval(values: Sequence[float], coverage: float = LEAST_COVERAGE) -> Interval:
    """Return the narrowest interval between two of the values with at least this chance; no law is assumed.

    The chance is exact (binomial). Too few values do not reach it: then it is from the least to the largest.
    """
    ordered, cut = sorted(values), 0
    while covered(len(ordered), cut + 1) >= coverage:
        cut += 1
    return Interval(
        statistics.median(ordered), ordered[cut], ordered[-1 - cut], round(covered(len(ordered), cut), 4)
    )


def covered(count: int, cut: int) -> float:
    """Return the chance that the median lies between so many values without `cut` of them at either end."""
    outside = 2 * sum(math.comb(count, number) for number in range(cut + 1))
    return 1 - outside / (1 << count)


@dataclass(frozen=True)
class Bound:
    """A figure and what it has to be: `relation` is <=, >= or ==."""

    value: float
    relation: str
    limit: float
    samples: Sequence[float] = ()
    """What the value is the median of: the bound is broken only where their whole interval breaks it."""

    @property
    def holds(self) -> bool:
        """Whether the figure keeps the bound."""
        values = [self.value]
        if self.samples:
            interval = median_interval(self.samples)
            values += [interval.low, interval.high]
        return any(HOLDS[self.relation](value, self.limit) for value in values)

    def document(self) -> dict[str, object]:
        """Return it as the closing line has it."""
        return {"value": self.value, "bound": f"{self.relation} {self.limit:g}", "holds": self.holds}


def close(
    benchmark: str,
    figures: Mapping[str, object],
    required: Mapping[str, Bound],
    goal: Mapping[str, Bound],
    samples: Mapping[str, Sequence[float]] | None = None,
) -> int:
    """Print the bounds as a table and all of it as the closing line; return the exit status.

    `samples` holds what a figure of that name is the median of, such as one ratio for each pair of runs.
    """
    document: dict[str, object] = {
        "benchmark": benchmark,
        "figures": dict(figures),
        "required": {name: bound.document() for name, bound in required.items()},
        "goal": {name: bound.document() for name, bound in goal.items()},
    }
    print(f"\n{'':10} {'figure':40} {'value':>10}  {'bound':10}")
    for kind, bounds in (("required", required), ("goal", goal)):
        for name, bound in bounds.items():
            verdict = "holds" if bound.holds else "DOES NOT HOLD"
            print(f"{kind:10} {name:40} {bound.value:>10g}  {bound.relation} {bound.limit:<8g} {verdict}")
    intervals = {name: median_interval(values) for name, values in (samples or {}).items() if values}
    for name, interval in intervals.items():
        if interval.coverage == 0:
            continue
        bounds_of = f"{interval.low:g} to {interval.high:g} ({interval.coverage:.0%})"
        print(f"{'median':10} {name:40} {interval.median:>10g}  {bounds_of}")
    if intervals:
        document["samples"] = {
            name: {"values": list((samples or {})[name]), **vars(interval)}
            for name, interval in intervals.items()
        }
    print(json.dumps(document), flush=True)
    return 0 if all(bound.holds for bound in required.values()) else 1


def cannot_run(why: str) -> NoReturn:
    """End the benchmark, for it lacks something on this machine."""
    print(f"cannot run here: {why}", file=sys.stderr, flush=True)
    sys.exit(CANNOT_RUN)
