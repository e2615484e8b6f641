"""The leak report as values: what `--json` prints, and what the table and the page are made from."""

from __future__ import annotations

import msgspec

from recyclery.leaks.growth import Shape


class PlaceReport(msgspec.Struct, frozen=True):
    """What a run leaves in one place, with its 95 % interval, which is None if there are too few runs."""

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
    """How many of the newest runs were measured."""
    children: int
    bytes_per_run: float
    low_bytes: float | None
    high_bytes: float | None
    share_of_growth: float = 0.0
    """Share of what all of the pool's tasks left."""
    places: dict[str, PlaceReport]
    first_seen: float
    suggested_max_tasks_per_child: int | None = None
    """How many runs of this task alone fit in a child's budget; None if no limit is needed or known."""
    recycles: int
    oom_kills: int
    browsers_left: int
    """How often it left a browser that was then killed."""
    note: str
    """Advice, in a sentence."""


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pool: its tasks, leaks first, and the max_tasks_per_child that suits their mix."""

    pool: str
    runs: int
    budget_bytes: int | None
    max_tasks_per_child: int | None
    suggested_max_tasks_per_child: int | None
    tasks: list[TaskReport]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True):
    """All pools, from the end of the first run to that of the last. Times are seconds since 1970."""

    history: str
    since: float
    until: float
    pools: list[PoolReport]

    @property
    def tasks(self) -> list[TaskReport]:
        """All tasks of all pools."""
        return [task for pool in self.pools for task in pool.tasks]
