"""A figure of every level as a known part and a sum of columns, fitted to the levels that were measured.

Nothing is taken for granted: how far off the fit is at each level that is left out of it is part of it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from recyclery.tune.least_squares import Design
from recyclery.tune.statistics import Estimate, quantile
from recyclery.tune.windows import Level

# Fits to figures as they might as well have come out; the bounds are quantiles of these.
DRAWS = 120
# A fit that misses levels left out of it by more predicts nothing.
MOST_LEFT_OUT_ERROR = 0.15


class Point(NamedTuple):
    """A level's figure, and its standard error as a share of it."""

    level: Level
    value: float
    share: float


class Terms(NamedTuple):
    """What a figure is made of: columns with a coefficient each, and what is known beforehand."""

    columns: Callable[[Level], tuple[float, ...]]
    known: Callable[[Level], float] = lambda _: 0.0

    def value(self, coefficients: Sequence[float], level: Level) -> float:
        """Return the figure at a level."""
        parts = (one * column for one, column in zip(coefficients, self.columns(level), strict=True))
        return self.known(level) + math.fsum(parts)


@dataclass(frozen=True, slots=True)
class Refused:
    """No model: why not, and what would help."""

    why: str


@dataclass(frozen=True)
class Fit:
    """The coefficients, and others that the figures' noise allows as well."""

    terms: Terms
    coefficients: tuple[float, ...]
    draws: tuple[tuple[float, ...], ...]
    left_out_error: float
    """How far off, as a share, levels between others are when left out (root of the mean square)."""

    def estimate(self, level: Level) -> Estimate:
        """Return the figure at a level with the interval that the noise allows."""
        drawn = sorted(self.terms.value(coefficients, level) for coefficients in self.draws)
        value = self.terms.value(self.coefficients, level)
        return Estimate(value, min(value, quantile(drawn, 0.025)), max(value, quantile(drawn, 0.975)))


def fit_points(points: Sequence[Point], terms: Terms) -> Fit:
    """Return the fit with the least relative error."""
    design, right = arrange(points, terms)
    coefficients = design.fit(right)
    off = math.fsum((terms.value(coefficients, point.level) / point.value - 1) ** 2 for point in points)
    spare = max(1, len(points) - sum(value > 0 for value in coefficients))
    # What the columns cannot follow is no less a doubt than what repeats differ by.
    misfit = math.sqrt(off / spare)
    # Of the noise, always the same: one run has one answer.
    chance = random.Random(len(points))  # noqa: S311
    draws = tuple(
        design.fit(
            [
                value + chance.gauss(0, max(misfit, point.share))
                for value, point in zip(right, points, strict=True)
            ]
        )
        for _ in range(DRAWS)
    )
    return Fit(terms, coefficients, draws, left_out_error(points, terms))


def arrange(points: Sequence[Point], terms: Terms) -> tuple[Design, list[float]]:
    """Return columns and right side, both as shares of what was measured."""
    design = Design([[value / point.value for value in terms.columns(point.level)] for point in points])
    return design, [1 - terms.known(point.level) / point.value for point in points]


def left_out_error(points: Sequence[Point], terms: Terms) -> float:
    """Return how far off levels between others are when left out, as a share."""
    errors = [
        predict_left_out(points, terms, concurrency)
        for concurrency in sorted({point.level.concurrency for point in points})[1:-1]
    ]
    squares = [error**2 for some in errors for error in some]
    return math.sqrt(math.fsum(squares) / len(squares)) if squares else math.inf


def predict_left_out(points: Sequence[Point], terms: Terms, concurrency: int) -> list[float]:
    """Return how far off, as a share, the other levels' fit is at those with this concurrency."""
    others = [point for point in points if point.level.concurrency != concurrency]
    design, right = arrange(others, terms)
    coefficients = design.fit(right)
    return [
        terms.value(coefficients, point.level) / point.value - 1
        for point in points
        if point.level.concurrency == concurrency
    ]
