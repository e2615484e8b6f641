"""The statistics that the memory model rests on, in the standard library alone: quantiles and tails."""

import math
from collections.abc import Sequence
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
