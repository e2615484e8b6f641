"""What came of an action."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether an action did what it was for, and the line for the log.

    `refused` where the worker said no, not where it said nothing.
    """

    done: bool
    line: str
    refused: bool = False
