"""Least squares over a few columns whose coefficients cannot be below 0, exactly and without a library.

Few columns have few subsets: of each the plain solution is known in closed form, and of those that have no
negative coefficient the best is the answer. The inverses are kept, so that fitting again costs little.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from recyclery.leaks.regression import invert

# Columns that others make up to so little of themselves cannot be told from those.
TOLERANCE = 1e-9


class Design:
    """What is measured, as rows of the columns' values; fits any right side to them."""

    def __init__(self, rows: Sequence[Sequence[float]]) -> None:
        width = len(rows[0])
        self._scales = [math.sqrt(math.fsum(row[at] ** 2 for row in rows)) for at in range(width)]
        self._rows = [
            tuple(value / scale if scale else 0.0 for value, scale in zip(row, self._scales, strict=True))
            for row in rows
        ]
        self._inverses = list(self._invert_subsets())

    def fit(self, right: Sequence[float]) -> tuple[float, ...]:
        """Return the coefficients that come nearest to the right side; 0 for a column that does not help."""
        sums = [
            math.fsum(row[at] * value for row, value in zip(self._rows, right, strict=True))
            for at in range(len(self._scales))
        ]
        best, most = [0.0] * len(sums), 0.0
        for used, inverse in self._inverses:
            parts = [math.fsum(line[j] * sums[other] for j, other in enumerate(used)) for line in inverse]
            if min(parts) < 0:
                continue
            # By so much the squares become less.
            gain = math.fsum(part * sums[at] for at, part in zip(used, parts, strict=True))
            if gain > most * (1 + TOLERANCE):
                best, most = [0.0] * len(sums), gain
                for at, part in zip(used, parts, strict=True):
                    best[at] = part
        return tuple(value / scale if scale else 0.0 for value, scale in zip(best, self._scales, strict=True))

    def _invert_subsets(self) -> Iterator[tuple[tuple[int, ...], list[list[float]]]]:
        """Yield subsets of the columns, small ones first, with the inverse of their products."""
        columns = [at for at, scale in enumerate(self._scales) if scale]
        products = {(i, j): math.fsum(row[i] * row[j] for row in self._rows) for i in columns for j in columns}
        for size in range(1, min(len(columns), len(self._rows)) + 1):
            for used in combinations(columns, size):
                if independent([[products[i, j] for j in used] for i in used]):
                    yield used, invert([products[i, j] for j in used] for i in used)


def independent(products: list[list[float]]) -> bool:
    """Tell whether columns, each of length 1, can be told apart: no pivot of their products is next to 0."""
    lines = [list(line) for line in products]
    for place, line in enumerate(lines):
        if line[place] < TOLERANCE:
            return False
        for other in lines[place + 1 :]:
            factor = other[place] / line[place]
            for at in range(place, len(line)):
                other[at] -= factor * line[at]
    return True
