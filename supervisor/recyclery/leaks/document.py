"""The report as values: what `--json` prints, and what table and page are made from."""

from __future__ import annotations

import msgspec

from recyclery.leaks.growth import Shape


class PlaceReport(msgspec.Struct, frozen=True):
    """What a run leaves in one place; between low and high with a chance of 95 %, None where few runs tell."""

    bytes_per_run: float
    low_bytes: float | None
    high_bytes: float | None
    shape: Shape


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one pool."""

    pool: str
    task: str
    shape: Shape
    place: str
    runs: int
    judged_runs: int
    """Of the newest runs, how many showed what they left."""
    children: int
    bytes_per_run: float
    low_bytes: float | None
    high_bytes: float | None
    share_of_growth: float = 0.0
    """Of all that the pool's tasks left."""
    places: dict[str, PlaceReport]
    first_seen: float
    suggested_max_tasks_per_child: int | None = None
    """How many of these alone fit what a child may hold; None where no number is needed or known."""
    recycles: int
    oom_kills: int
    browsers_left: int
    """How often it left a browser that was killed."""
    note: str
    """What to make of it, in a sentence."""


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pool: its tasks, largest growth first, and the number that suits their mix."""

    pool: str
    runs: int
    budget_bytes: int | None
    max_tasks_per_child: int | None
    suggested_max_tasks_per_child: int | None
    tasks: list[TaskReport]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True):
    """All pools, from the first to the last run that was read. Times are seconds since 1970."""

    history: str
    since: float
    until: float
    pools: list[PoolReport]

    @property
    def tasks(self) -> list[TaskReport]:
        """All tasks of all pools."""
        return [task for pool in self.pools for task in pool.tasks]
