"""Figures with their intervals: rates over repeats, quantiles of times."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from recyclery.common.statistics import NORMAL, deviation, t_quantile

# Intervals hold with a chance of 95 %.
SURE = 0.975
# The quantile's expansion is good from so many degrees of freedom on.
LEAST_FREEDOM = 3


class Spread(NamedTuple):
    """How much repeats of a level differ, as a share, and from how many of them that is known."""

    share: float
    freedom: int

    @property
    def reach(self) -> float:
        """So many times the standard error lies a bound away from the middle."""
        return t_quantile(SURE, max(LEAST_FREEDOM, self.freedom)) if self.freedom else NORMAL.inv_cdf(SURE)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure, and the bounds that it lies between with a chance of 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Times:
    """Quantiles of the seconds that something took; of the 95 % one its interval too."""

    p50: float
    p95: Estimate
    p99: float


def pool_spread(groups: Sequence[Sequence[float]]) -> Spread:
    """Return how much figures of one group differ, from all groups together: few repeats tell little each."""
    squares, freedom = 0.0, 0
    for group in groups:
        logs = [math.log(value) for value in group if value > 0]
        if len(logs) > 1:
            squares += deviation(logs, fmean(logs)) ** 2 * (len(logs) - 1)
            freedom += len(logs) - 1
    return Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)


def about(value: float, share: float, reach: float) -> Estimate:
    """Return the estimate whose standard error is this share of it."""
    away = math.exp(share * reach)
    return Estimate(value, value / away, value * away)


def measure_times(seconds: Sequence[float]) -> Times | None:
    """Return the quantiles; None of nothing."""
    if not seconds:
        return None
    ordered = sorted(seconds)
    return Times(quantile(ordered, 0.5), estimate_quantile(ordered, 0.95), quantile(ordered, 0.99))


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the value that this share of the rising ones do not pass, between two neighbours where it must."""
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def estimate_quantile(ordered: Sequence[float], share: float) -> Estimate:
    """Return a quantile between two of the values; boundless above where these are too few to tell."""
    count = len(ordered)
    away = NORMAL.inv_cdf(SURE) * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - away) - 1, math.ceil(count * share + away) - 1
    return Estimate(
        quantile(ordered, share),
        ordered[max(0, low)],
        ordered[high] if high < count else math.inf,
    )


def variation(seconds: Sequence[float]) -> float:
    """Return the coefficient of variation; 0 of fewer than two values, and where all are 0."""
    if len(seconds) < 2:
        return 0.0
    mean = fmean(seconds)
    return deviation(seconds, mean) / mean if mean else 0.0
