"""What a tuning measures, and what its recommendation is to be good for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec


@dataclass(frozen=True, slots=True, order=True)
class Level:
    """A pair of settings to try."""

    concurrency: int
    max_tasks_per_child: int


Objective = Literal["throughput", "latency"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """The objective, the bounds, and the load; None where nothing was said."""

    pool: str = "slow"
    objective: Objective = "throughput"
    slo_seconds: float | None = None
    """95 % of the tasks are to be done in so long."""
    memory_bytes: int | None = None
    """The container's limit, where it is to be another than that of the run."""
    arrivals_per_second: float | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the measuring goes by."""

    app: str
    config: str | None
    """The configuration file that was named."""
    pool: str
    task: str
    args: str | None
    generate: str | None
    concurrencies: tuple[int, ...]
    """In ascending order."""
    asked_for: bool
    """Whether somebody named them: then each is tried, even if the one before it brought no more."""
    max_tasks: tuple[int, ...]
    repeats: int
    """Windows of each level, one in each round; at least."""
    most_repeats: int
    """Rounds at most, where levels near the best one cannot be told apart yet."""
    seed: int
    least_seconds: float
    most_seconds: float
    memory_bytes: int | None
    loads: tuple[str, ...] = ()
    """Arrivals to try at the level that is recommended: `2/s`, or a share of what it can do, `85%`."""
    trace: str | None = None
    began: str = ""

    @property
    def levels(self) -> tuple[Level, ...]:
        """All levels, the lowest first."""
        return tuple(sorted(Level(each, most) for each in self.concurrencies for most in self.max_tasks))
