"""Figures with their 95 % intervals: quantiles of times, and rates without what a whole round adds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from recyclery.common.statistics import NORMAL, deviation, t_quantile
from recyclery.tune.spec import Level
from recyclery.tune.window import Window

# Of a two-sided 95 % interval.
UPPER_SHARE = 0.975
# The expansion of Student's quantile is good from so many degrees of freedom on.
LEAST_FREEDOM = 3
# With the same levels in each round the first pass is exact; else each brings the rest down to a part.
PASSES, SETTLED = 500, 1e-9


class Spread(NamedTuple):
    """How much repeats of a level differ (standard deviation of the logarithm), with degrees of freedom."""

    share: float
    freedom: int

    @property
    def reach(self) -> float:
        """How many standard errors a bound is away from the middle."""
        if not self.freedom:
            return NORMAL.inv_cdf(UPPER_SHARE)
        return t_quantile(UPPER_SHARE, max(LEAST_FREEDOM, self.freedom))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and the bounds that it lies between with a chance of 95 %."""

    value: float
    low: float
    high: float

    @classmethod
    def around(cls, value: float, error: float, reach: float) -> Estimate:
        """Return the estimate for a standard error that is given as a share of the value."""
        away = math.exp(error * reach)
        return cls(value, value / away, value * away)


@dataclass(frozen=True, slots=True)
class Times:
    """Quantiles of durations in seconds; the 95 % quantile has its interval too."""

    p50: float
    p95: Estimate
    p99: float


def pool_spread(groups: Iterable[Sequence[float]]) -> Spread:
    """Return how much figures of one group differ, from all groups together: one group has few of them."""
    squares, freedom = 0.0, 0
    for group in groups:
        logs = [math.log(value) for value in group if value > 0]
        if len(logs) > 1:
            squares += deviation(logs, fmean(logs)) ** 2 * (len(logs) - 1)
            freedom += len(logs) - 1
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def measure_times(seconds: Sequence[float]) -> Times | None:
    """Return the quantiles; None where there are no times."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return Times(quantile(ordered, 0.5), estimate_quantile(ordered, 0.95), quantile(ordered, 0.99))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of the ascending ones do not exceed, interpolated between two."""
    index = share * (len(ordered) - 1)
    below = math.floor(index)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (index - below) * (ordered[above] - ordered[below])


def estimate_quantile(ordered: Sequence[float], share: float) -> Estimate:
    """Return a quantile between two of the values; without an upper bound where these are too few."""
    count = len(ordered)
    away = NORMAL.inv_cdf(UPPER_SHARE) * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - away) - 1, math.ceil(count * share + away) - 1
    return Estimate(quantile(ordered, share), ordered[max(0, low)], ordered[high] if high < count else math.inf)


def variation(seconds: Sequence[float]) -> float:
    """Return the coefficient of variation; 0 of fewer than two values, and where all are 0."""
    mean = fmean(seconds) if len(seconds) > 1 else 0.0
    return deviation(seconds, mean) / mean if mean else 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Each level's tasks per second in an average round, and how much its windows differ beside that."""

    per_second: Mapping[Level, float]
    spread: Spread


def estimate_rates(windows: Iterable[Window]) -> Rates:
    """Return the rates of the levels whose every window had a task that succeeded.

    A machine that others use is faster in one round of windows than in the next, and later rounds may run only
    some of the levels. So a window's rate is taken as its level's times its round's (block effects), and what
    is left over is noise: two-way analysis of variance without interaction, on logarithms.
    """
    rates: dict[Level, dict[int, float]] = defaultdict(dict)
    for window in windows:
        rates[window.level][window.repeat] = window.per_second
    logs = {
        (level, number): math.log(rate)
        for level, by_round in rates.items()
        if all(by_round.values())
        for number, rate in by_round.items()
    }
    levels, rounds = fit_effects(logs)
    freedom = max(0, len(logs) - len(levels) - len(rounds) + 1)
    squares = math.fsum((log - levels[level] - rounds[number]) ** 2 for (level, number), log in logs.items())
    spread = Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)
    return Rates({level: math.exp(log) for level, log in levels.items()}, spread)


def fit_effects(logs: Mapping[tuple[Level, int], float]) -> tuple[dict[Level, float], dict[int, float]]:
    """Return the levels' and the rounds' parts by least squares, each fitted in turn; the rounds' mean is 0."""
    levels = dict.fromkeys((level for level, _ in logs), 0.0)
    rounds = dict.fromkeys((number for _, number in logs), 0.0)
    for _ in range(PASSES if logs else 0):
        before = dict(levels)
        for level in levels:
            levels[level] = fmean(log - rounds[r] for (one, r), log in logs.items() if one == level)
        for number in rounds:
            rounds[number] = fmean(log - levels[one] for (one, r), log in logs.items() if r == number)
        mean = fmean(rounds.values())
        rounds = {number: effect - mean for number, effect in rounds.items()}
        levels = {level: effect + mean for level, effect in levels.items()}
        if all(abs(effect - before[level]) < SETTLED for level, effect in levels.items()):
            break
    return levels, rounds
