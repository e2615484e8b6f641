"""Least squares with no coefficient below 0: exact, whatever the columns are."""

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recyclery.tune.least_squares import Design

ROWS = [(1.0, float(k), float(k * k)) for k in range(6)]
amounts = st.floats(min_value=0, max_value=100)


def off(rows: Sequence[tuple[float, ...]], right: list[float], coefficients: tuple[float, ...]) -> float:
    """Return the sum of squares."""
    fitted = [sum(c * value for c, value in zip(coefficients, row, strict=True)) for row in rows]
    return math.fsum((one - other) ** 2 for one, other in zip(fitted, right, strict=True))


@given(st.tuples(amounts, amounts, amounts))
def test_a_right_side_that_some_coefficients_make_is_met(planted: tuple[float, ...]) -> None:
    right = [sum(c * value for c, value in zip(planted, row, strict=True)) for row in ROWS]
    # A coefficient that hardly helps may be left at 0.
    assert off(ROWS, right, Design(ROWS).fit(right)) <= 1e-8 * math.fsum(value**2 for value in right)


@given(
    st.lists(st.floats(min_value=-100, max_value=100), min_size=6, max_size=6),
    st.tuples(amounts, amounts, amounts),
)
def test_no_other_coefficients_come_nearer(right: list[float], others: tuple[float, ...]) -> None:
    found = Design(ROWS).fit(right)
    assert min(found) >= 0
    assert off(ROWS, right, found) <= off(ROWS, right, others) * (1 + 1e-6) + 1e-6


def test_a_column_that_would_need_to_be_negative_is_left_out() -> None:
    assert Design(ROWS).fit([10 - row[1] for row in ROWS])[1:] == (0.0, 0.0)


def test_of_columns_that_cannot_be_told_apart_one_is_used() -> None:
    rows = [(1.0, 2.0) for _ in range(4)]
    first, second = Design(rows).fit([6.0] * 4)
    assert first + 2 * second == pytest.approx(6)
