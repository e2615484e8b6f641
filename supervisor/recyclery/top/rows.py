"""Rows of the screen, and which of them stay where there is not room for all."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from recyclery.top.text import Line


class Rank(IntEnum):
    """What a row is worth; the last go first."""

    TITLE = 0
    TROUBLE = 1
    MEMORY = 2
    CHOSEN = 3
    POOL = 4
    FIGURES = 5
    NEWEST = 6
    CHOSEN_CHILD = 7
    CHILD = 8
    EVENT = 9
    SPACE = 10
    DETAIL = 11
    REST = 12


class Row(NamedTuple):
    """A line and its rank."""

    rank: Rank
    line: Line


def keep_rows(rows: Sequence[Row], height: int) -> list[Row]:
    """Return the rows worth most, as many as fit, in their order; of equal ones the upper stay."""
    places = sorted(range(len(rows)), key=lambda place: (rows[place].rank, place))
    return [rows[place] for place in sorted(places[: max(height, 0)])]
