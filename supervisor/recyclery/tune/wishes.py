"""What an answer is asked to be good for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
