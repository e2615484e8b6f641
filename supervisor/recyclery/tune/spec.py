"""What a tuning was asked to measure: written at the head of its run file, so that it can be resumed."""

from __future__ import annotations

import msgspec

from recyclery.tune.windows import Level


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
