"""Estimates what runs of each kind leave, by regression over the idle memory before and after each run.

One reading ends a run and begins the next, so its error is added to one difference and subtracted from the
other. Neighbouring differences are therefore correlated, and their plain mean is far less certain than the
readings allow. Generalised least squares accounts for that: differences vary by what runs leave (with a
variance for each kind) and by the noise of readings, which the products of neighbours reveal.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

# Readings are in pages, which kernels count in batches: no difference is more precise.
LEAST_DEVIATION_BYTES = 16 << 10
ROUNDS = 3
# Products of neighbours are clipped at this many deviations, else a few odd runs would pass for noise.
MAX_DEVIATIONS = 3.0
# A reading is odd if both differences around it exceed the median one by this factor.
ODD_READING = 4.0
# A part of an earlier run's row that is smaller than this no longer counts.
LEAST_PART = 1e-6
# Added to the diagonal, as a share of it: far above rounding errors, far below any noise.
RIDGE_SHARE = 1e-9
# Added for kinds without data, as if their coefficients were known to within 1 TB.
RIDGE = 1e-24


class Difference(NamedTuple):
    """What consecutive runs left: `runs` counts them by kind, and kinds are numbered from 0.

    `joined` if it began with the reading that the difference before it ended with.
    """

    runs: Mapping[int, int]
    left_bytes: float
    joined: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """Bytes left by a run of each kind, the covariance of these estimates, and the noise of a reading.

    `singles` is what the runs measured singly left, by kind.
    """

    means: Sequence[float]
    covariance: Sequence[Sequence[float]]
    noise_bytes: float
    singles: Mapping[int, Sequence[float]]

    def combine(self, weights: Mapping[int, float]) -> tuple[float, float]:
        """Return a sum of the means, weighted by kind, and its standard error."""
        mean = sum(weight * self.means[kind] for kind, weight in weights.items())
        variance = sum(weights[i] * weights[j] * self.covariance[i][j] for i in weights for j in weights)
        return mean, math.sqrt(max(0.0, variance))


def fit_kinds(differences: Sequence[Difference], kinds: int) -> Fit:
    """Return the fit; a kind without runs gets an enormous variance."""
    noise, variances = 0.0, [float(sum(runs.values())) for runs, _, _ in differences]
    means, covariance = least_squares(differences, kinds, variances, noise)
    for _ in range(ROUNDS):
        residuals = [left - sum(means[kind] * runs[kind] for kind in runs) for runs, left, _ in differences]
        by_kind = kind_variances(differences, residuals, kinds)
        variances = [sum(by_kind[kind] * runs[kind] for kind in runs) for runs, _, _ in differences]
        noise = noise_variance(differences, residuals, variances)
        means, covariance = least_squares(differences, kinds, variances, noise)
    singles: dict[int, list[float]] = defaultdict(list)
    for each in differences:
        if sum(each.runs.values()) == 1:
            singles[next(iter(each.runs))].append(each.left_bytes)
    return Fit(means, covariance, math.sqrt(noise), singles)


def without_odd(differences: Sequence[Difference]) -> list[Difference]:
    """Return the differences with those around an odd reading merged.

    A sample that is a moment late finds a browser at its next page. Such a reading is far above or far below
    both of its neighbours.
    """
    sizes = sorted(abs(difference.left_bytes) for difference in differences)
    far = ODD_READING * max(LEAST_DEVIATION_BYTES, sizes[len(sizes) // 2]) if sizes else 0.0
    kept: list[Difference] = []
    for runs, left, joined in differences:
        before = kept[-1] if kept and joined else None
        if before and before.left_bytes * left < 0 and min(abs(before.left_bytes), abs(left)) > far:
            both = Counter(before.runs) + Counter(runs)
            kept[-1] = Difference(both, before.left_bytes + left, before.joined)
        else:
            kept.append(Difference(runs, left, joined))
    return kept


def kind_variances(differences: Sequence[Difference], residuals: Sequence[float], kinds: int) -> list[float]:
    """Return the variance of one run of each kind."""
    squares, counts = [0.0] * kinds, [0.0] * kinds
    for difference, residual in zip(differences, residuals, strict=True):
        total = sum(difference.runs.values())
        for kind, runs in difference.runs.items():
            squares[kind] += residual * residual / total * (runs / total)
            counts[kind] += runs / total
    return [
        max(LEAST_DEVIATION_BYTES**2, square / max(1.0, count - 1))
        for square, count in zip(squares, counts, strict=True)
    ]


def noise_variance(
    differences: Sequence[Difference], residuals: Sequence[float], variances: Sequence[float]
) -> float:
    """Return the variance of a single reading, from the covariance of joined neighbours."""
    products = weights = 0.0
    rows = zip(differences, residuals, variances, strict=True)
    for (_, residual_before, variance_before), (difference, residual, variance) in pairwise(rows):
        if difference.joined:
            both = variance * variance_before
            limit = MAX_DEVIATIONS * math.sqrt(both)
            products += max(-limit, min(limit, residual * residual_before)) / both
            weights += 1 / both
    if not weights:
        return 0.0
    # A difference has two readings, so its variance is at least twice theirs.
    return max(0.0, min(-products / weights, min(variances) / 2))


def least_squares(
    differences: Sequence[Difference], kinds: int, variances: Sequence[float], noise: float
) -> tuple[list[float], list[list[float]]]:
    """Return the means and their covariance by generalised least squares.

    The covariance matrix of the differences is tridiagonal: one pass makes them independent (Cholesky) and
    sums up the normal equations on the way.
    """
    normal = [[0.0] * kinds for _ in range(kinds)]
    right = [0.0] * kinds
    row: dict[int, float] = {}
    left = pivot = 0.0
    for difference, variance in zip(differences, variances, strict=True):
        factor = -noise / pivot if difference.joined and pivot and noise else 0.0
        pivot = variance - factor * factor * pivot
        row = {kind: -factor * value for kind, value in row.items() if factor and abs(value) > LEAST_PART}
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
        # Kinds that always run together cannot be told apart: each gets a share, and a large variance.
        normal[kind][kind] += normal[kind][kind] * RIDGE_SHARE + RIDGE
    inverse = invert(normal)
    means = [sum(value * known for value, known in zip(line, right, strict=True)) for line in inverse]
    return means, inverse


def invert(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the inverse of a symmetric positive definite matrix (Gauss-Jordan elimination)."""
    size = len(matrix)
    lines = [[*line, *(float(row == column) for column in range(size))] for row, line in enumerate(matrix)]
    for number in range(size):
        pivot = lines[number][number]
        lines[number] = [value / pivot for value in lines[number]]
        for other in range(size):
            factor = lines[other][number]
            if other != number and factor:
                lines[other] = [
                    value - factor * own for value, own in zip(lines[other], lines[number], strict=True)
                ]
    return [line[size:] for line in lines]
