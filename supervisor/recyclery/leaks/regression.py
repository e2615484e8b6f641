"""What runs of each kind leave, by regression over the differences of idle memory before and after each run.

One reading of idle memory ends a run and begins the next: what it is wrong by is added to the one difference
and taken from the other. So neighbouring differences vary against each other, and a plain mean of them is far
less sure than the readings allow. Generalised least squares knows of it: differences vary by what runs leave
(each kind its own variance) and by the readings' noise, which their neighbours' products tell apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Readings are in pages, and kernels count them in batches: no difference is surer than this.
LEAST_DEVIATION_BYTES = 16 << 10
ROUNDS = 3
# Products of neighbours beyond this many deviations say more of a few odd runs than of noise.
ODD = 3.0
# A reading is far off if both differences around it are so many times as large as most are.
ODD_READING = 4.0
# So little is added to what is known of each kind, as a share of it: far above rounding, far below any noise.
TOUCH_SHARE = 1e-9
# And to that of a kind of which nothing is known: next to nothing, as of a coefficient within 1 TB.
TOUCH = 1e-24


class Difference(NamedTuple):
    """What a run left, or several on end: `runs` has how many of each kind, kinds being counted from 0.

    `joined` where it began at the very reading that the difference before it ended with.
    """

    runs: Mapping[int, int]
    left_bytes: float
    joined: bool

    @property
    def single(self) -> bool:
        """Whether it is of one run alone."""
        return sum(self.runs.values()) == 1


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes left by a run of each kind, and how the estimates vary together."""

    means: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    noise_bytes: float

    def combine(self, weights: Sequence[float]) -> tuple[float, float]:
        """Return a weighted sum of the coefficients and its standard deviation."""
        mean = sum(weight * value for weight, value in zip(weights, self.means, strict=True))
        used = [place for place, weight in enumerate(weights) if weight]
        variance = sum(weights[i] * weights[j] * self.covariance[i][j] for i in used for j in used)
        return mean, math.sqrt(max(0.0, variance))


def fit_kinds(differences: Sequence[Difference], kinds: int) -> Fit:
    """Return the fit; of a kind that does not occur, nothing is known."""
    means, _ = weigh(differences, kinds, spread_out(differences, [1.0] * kinds), 0.0)
    covariance: list[list[float]] = []
    noise = 0.0
    for _ in range(ROUNDS):
        rests = [
            difference.left_bytes - sum(runs * means[kind] for kind, runs in difference.runs.items())
            for difference in differences
        ]
        varied = spread_out(differences, kind_variances(differences, rests, kinds))
        noise = noise_variance(differences, rests, varied)
        means, covariance = weigh(differences, kinds, varied, noise)
    return Fit(tuple(means), tuple(map(tuple, covariance)), math.sqrt(noise))


def without_odd(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences without readings that are far off: those around such a one are taken together.

    A look that comes a moment late finds a browser at its next page. That reading, and no other, is far above
    or below both of its neighbours.
    """
    sizes = sorted(abs(difference.left_bytes) for difference in differences)
    far = ODD_READING * max(LEAST_DEVIATION_BYTES, sizes[len(sizes) // 2]) if sizes else 0.0
    kept: list[Difference] = []
    for difference in differences:
        before = kept[-1] if kept else None
        if (
            before is not None
            and difference.joined
            and before.left_bytes * difference.left_bytes < 0
            and min(abs(before.left_bytes), abs(difference.left_bytes)) > far
        ):
            both = Counter(before.runs) + Counter(difference.runs)
            kept[-1] = Difference(both, before.left_bytes + difference.left_bytes, before.joined)
        else:
            kept.append(difference)
    return kept


def kind_variances(differences: Sequence[Difference], rests: Sequence[float], kinds: int) -> list[float]:
    """Return how much the differences of each kind vary, per run."""
    squares, counts = [0.0] * kinds, [0.0] * kinds
    for difference, rest in zip(differences, rests, strict=True):
        total = sum(difference.runs.values())
        for kind, runs in difference.runs.items():
            squares[kind] += rest * rest / total * (runs / total)
            counts[kind] += runs / total
    return [
        max(LEAST_DEVIATION_BYTES**2, square / max(1.0, count - 1))
        for square, count in zip(squares, counts, strict=True)
    ]


def spread_out(differences: Sequence[Difference], variances: Sequence[float]) -> list[float]:
    """Return the variance of each difference."""
    return [sum(runs * variances[kind] for kind, runs in difference.runs.items()) for difference in differences]


def noise_variance(differences: Sequence[Difference], rests: Sequence[float], varied: Sequence[float]) -> float:
    """Return the variance of a single reading, from how joined neighbours vary against each other."""
    products = weights = 0.0
    for place in range(1, len(differences)):
        if differences[place].joined:
            both = varied[place] * varied[place - 1]
            product = rests[place] * rests[place - 1]
            most = ODD * math.sqrt(both)
            products += max(-most, min(most, product)) / both
            weights += 1 / both
    if not weights:
        return 0.0
    # Each difference holds two readings: its variance is at least twice theirs.
    return max(0.0, min(-products / weights, min(varied) / 2))


def weigh(
    differences: Sequence[Difference], kinds: int, varied: Sequence[float], noise: float
) -> tuple[list[float], list[list[float]]]:
    """Return coefficients and their covariance by least squares, weighted for these variances.

    The differences' covariance has nothing but a diagonal and its neighbours: one pass makes them independent
    (Cholesky), and the sums of the normal equations are gathered on the way.
    """
    normal = [[0.0] * kinds for _ in range(kinds)]
    right = [0.0] * kinds
    row: dict[int, float] = {}
    left = pivot = 0.0
    for difference, diagonal in zip(differences, varied, strict=True):
        factor = -noise / pivot if difference.joined and pivot and noise else 0.0
        pivot = diagonal - factor * factor * pivot if factor else diagonal
        # What is left of a far-away run's part is dropped when it no longer counts.
        row = {kind: -factor * value for kind, value in row.items() if abs(value) > 1e-6} if factor else {}
        for kind, runs in difference.runs.items():
            row[kind] = row.get(kind, 0.0) + runs
        left = difference.left_bytes - factor * left
        for i, value in row.items():
            part = value / pivot
            right[i] += part * left
            line = normal[i]
            for j, other in row.items():
                line[j] += part * other
    for kind in range(kinds):
        # Kinds that always ran together are told apart by no data: each gets its part, and is very unsure.
        normal[kind][kind] += normal[kind][kind] * TOUCH_SHARE + TOUCH
    inverse = invert(normal)
    means = [sum(value * known for value, known in zip(line, right, strict=True)) for line in inverse]
    return means, inverse


def invert(matrix: Iterable[Sequence[float]]) -> list[list[float]]:
    """Return the inverse of a symmetric positive matrix (Gauss and Jordan)."""
    lines = [list(line) for line in matrix]
    size = len(lines)
    for place, line in enumerate(lines):
        line.extend(float(place == other) for other in range(size))
    for place in range(size):
        pivot = lines[place][place]
        lines[place] = [value / pivot for value in lines[place]]
        for other in range(size):
            factor = lines[other][place]
            if other != place and factor:
                lines[other] = [
                    value - factor * own for value, own in zip(lines[other], lines[place], strict=True)
                ]
    return [line[size:] for line in lines]
