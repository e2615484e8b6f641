"""The statistics that the memory model rests on, in the standard library alone: quantiles, tails, trends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations
from statistics import NormalDist, fmean

NORMAL = NormalDist()


def t_quantile(share: float, freedom: int) -> float:
    """Return Student's t quantile by its expansion about the normal one (Abramowitz & Stegun 26.7.5)."""
    z = NORMAL.inv_cdf(share)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def chi_square_quantile(share: float, freedom: int) -> float:
    """Return the chi-square quantile by Wilson and Hilferty's cube (Abramowitz & Stegun 26.4.17)."""
    part = 2 / (9 * freedom)
    return float(freedom * max(0.0, 1 - part + NORMAL.inv_cdf(share) * math.sqrt(part)) ** 3)


def deviation(values: Sequence[float], mean: float) -> float:
    """Return the standard deviation of a sample; `statistics.stdev` reckons in fractions and is slow."""
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def mean_excess(ordered: Sequence[float], above: int) -> tuple[float, float]:
    """Return the threshold that `above` of the values pass, and by how much they do on average.

    `ordered` falls. With the two, peaks over threshold says how far beyond all seen the next may go.
    """
    threshold = ordered[above]
    return threshold, fmean(ordered[:above]) - threshold


def sen_slope(points: Sequence[tuple[float, float]], risk: float) -> tuple[float, float, float]:
    """Return low, middle and high of the slope of (x, y) points: Sen's median of all pairs' slopes.

    The bounds invert Mann and Kendall's test (Gilbert 1987, section 16.5): the low one is above 0 where that
    test finds a rise. Each is passed with a chance of `risk`.
    """
    slopes = sorted((b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(points, 2) if a[0] != b[0])
    if not slopes:
        return -math.inf, 0.0, math.inf
    count, pairs = len(points), len(slopes)
    spread = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    away = NORMAL.inv_cdf(1 - risk) * spread / 2
    low, high = math.floor(pairs / 2 - away) - 1, math.ceil(pairs / 2 + away)
    return (
        slopes[low] if low >= 0 else -math.inf,
        slopes[pairs // 2],
        slopes[high] if high < pairs else math.inf,
    )
