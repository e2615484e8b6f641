"""Memory over a stretch of time, in as many steps as can be seen apart, and what was done in it."""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recyclery.history.reading import open_rows

# From steps of this length on only the sums of each minute are read, not every second.
MINUTE_SECONDS = 60
MOST_ACTIONS = 200
# The cache that SQLite may take; the governor's memory is counted.
CACHE_KIB = 256


@dataclass(frozen=True)
class Span:
    """A stretch of time up to now, and the steps in which it is drawn."""

    seconds: int
    step_seconds: int


SPANS = {
    "15m": Span(900, 3),
    "1h": Span(3600, 10),
    "6h": Span(6 * 3600, 60),
    "24h": Span(24 * 3600, 300),
    "7d": Span(7 * 24 * 3600, 1800),
}


class Deed(msgspec.Struct, frozen=True):
    """One action, or an OOM kill."""

    at: float
    kind: str
    pool: str
    task: str | None
    line: str
    done: bool


@dataclass(frozen=True)
class Timeline:
    """Of each step that was looked at when it began, and its figures: usage's mean, of the others the highest.

    A pool that was not there in a step has None. Actions are the newest; `actions_in_all` counts all.
    """

    since: float
    until: float
    step_seconds: int
    kept_since: float | None
    at: list[int] = field(default_factory=list)
    usage_bytes: list[int] = field(default_factory=list)
    floor_bytes: list[int] = field(default_factory=list)
    limit_bytes: list[int] = field(default_factory=list)
    pools: dict[str, list[int | None]] = field(default_factory=dict)
    actions: list[Deed] = field(default_factory=list)
    actions_in_all: int = 0


# Minutes that are summed up, and the seconds that are not yet.
CONTAINER = """
    SELECT at / :step, avg(usage), max(floor), max(most) FROM (
        SELECT at, usage_bytes AS usage, most_floor_bytes AS floor, limit_bytes AS most FROM container_minutes
        WHERE at >= :since AND at < :summed AND at <= :until
        UNION ALL
        SELECT at, usage_bytes, floor_bytes, limit_bytes FROM container_samples
        WHERE at >= max(:since, :summed) AND at <= :until)
    GROUP BY 1 ORDER BY 1"""
POOLS = """
    SELECT at / :step, pool, max(tree) FROM (
        SELECT at, pool, most_tree_bytes AS tree FROM pool_minutes
        WHERE at >= :since AND at < :summed AND at <= :until
        UNION ALL
        SELECT at, pool, tree_bytes FROM pool_samples WHERE at >= max(:since, :summed) AND at <= :until)
    GROUP BY 1, 2"""
KEPT_SINCE = """
    SELECT min(at) FROM (SELECT min(at) AS at FROM container_minutes
    UNION ALL SELECT min(at) FROM container_samples)"""
ACTIONS = """
    SELECT at / 1000.0, kind, pool, name, line, done FROM actions LEFT JOIN tasks ON tasks.id = task
    WHERE at >= ? AND at <= ? ORDER BY at DESC LIMIT ?"""
COUNT_ACTIONS = "SELECT count(*) FROM actions WHERE at >= ? AND at <= ?"
SUMMED = "SELECT upto FROM progress WHERE what = 'container_minutes'"
SECONDS_KEPT_SINCE = "SELECT min(at) FROM container_samples"


def read_timeline(path: Path, span: Span, now: float) -> Timeline:
    """Read a stretch of time up to now; raises NoHistory."""
    with open_rows(path) as connection:
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        return Tables(connection, span, round(now * 1000)).read(MOST_ACTIONS)


def read_stretch(path: Path, since: float, until: float, most_steps: int, most_actions: int) -> Timeline:
    """Read any stretch of time in so many steps, of whole minutes where not all of its seconds are kept.

    Raises NoHistory.
    """
    seconds = math.ceil(until - since)
    step = math.ceil(seconds / most_steps) or 1
    with open_rows(path) as connection:
        (kept_since,) = connection.execute(SECONDS_KEPT_SINCE).fetchone()
        if step > MINUTE_SECONDS or kept_since is None or kept_since > since * 1000:
            step = math.ceil(step / MINUTE_SECONDS) * MINUTE_SECONDS
        return Tables(connection, Span(seconds, step), round(until * 1000)).read(most_actions)


class Tables:
    """The rows of one stretch of time. Times are milliseconds."""

    def __init__(self, connection: sqlite3.Connection, span: Span, until: int) -> None:
        self._execute = connection.execute
        self._span = span
        self._step = span.step_seconds * 1000
        # At a whole step, so that the same times fall together each time that this is read.
        self._since = (until - span.seconds * 1000) // self._step * self._step
        self._until = until

    def read(self, most_actions: int) -> Timeline:
        """Return all that is drawn."""
        where = {"step": self._step, "since": self._since, "summed": self._summed(), "until": self._until}
        rows = self._execute(CONTAINER, where).fetchall()
        places = {step: place for place, (step, *_) in enumerate(rows)}
        pools: dict[str, list[int | None]] = {}
        for step, pool, tree in self._execute(POOLS, where):
            if step in places:
                pools.setdefault(pool, [None] * len(rows))[places[step]] = int(tree)
        (kept_since,) = self._execute(KEPT_SINCE).fetchone()
        stretch = (self._since, self._until)
        return Timeline(
            since=self._since / 1000,
            until=self._until / 1000,
            step_seconds=self._span.step_seconds,
            kept_since=kept_since / 1000 if kept_since is not None else None,
            at=[step * self._span.step_seconds for step, *_ in rows],
            usage_bytes=[int(usage) for _, usage, _, _ in rows],
            floor_bytes=[int(floor) for _, _, floor, _ in rows],
            limit_bytes=[int(limit) for _, _, _, limit in rows],
            pools=dict(sorted(pools.items())),
            actions=[
                Deed(at, kind, pool, task, line, bool(done))
                for at, kind, pool, task, line, done in self._execute(ACTIONS, (*stretch, most_actions))
            ],
            actions_in_all=self._execute(COUNT_ACTIONS, stretch).fetchone()[0],
        )

    def _summed(self) -> int:
        """Return until when minutes are read instead of seconds."""
        found = self._execute(SUMMED).fetchone() if self._span.step_seconds >= MINUTE_SECONDS else None
        return int(found[0]) if found else 0
