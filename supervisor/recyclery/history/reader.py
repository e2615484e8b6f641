"""Reads `history.db` while it is written, and after its writer is dead. Times are seconds since 1970."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from recyclery.history.records import Parts
from recyclery.history.schema import VERSION, schema_version

# A reader waits for a writer's checkpoint, never longer.
BUSY_SECONDS = 5.0


class NoHistory(Exception):
    """There is no history to read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a task, or several short ones on end, as it is kept."""

    pool: str
    child: int
    tasks: Mapping[str, int]
    place: int
    ended: float
    seconds: float
    before: Parts | None
    peak: Parts
    after: Parts | None
    browser_seen: bool
    outcome: str


@dataclass(frozen=True, slots=True)
class Done:
    """One action, or an OOM kill."""

    at: float
    kind: str
    pool: str
    child: int | None
    task: str | None
    line: str
    done: bool


@contextmanager
def open_history(path: Path) -> Iterator[History]:
    """Open a history for reading alone, and close it; raises NoHistory."""
    with open_rows(path) as connection:
        yield History(connection)


@contextmanager
def open_rows(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the tables of a history for reading alone, and close them; raises NoHistory."""
    if not path.exists():
        raise NoHistory(
            f"{path}: there is no history; `recyclery run` writes it in RECYCLERY_STATE_DIR, or name "
            "a file with --history"
        )
    connection = connect(path)
    try:
        version = schema_version(connection)
        if version > VERSION:
            raise NoHistory(f"{path}: written by a later version of Recyclery; read it with that one")
        if version < VERSION:
            raise NoHistory(f"{path}: of an older version; a governor of this one brings it up to date")
        yield connection
    except sqlite3.Error as error:
        raise NoHistory(f"{path}: {error}; the governor sets such a file aside and begins anew") from None
    finally:
        connection.close()


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write; raises NoHistory."""
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError:
            # In a folder where nothing may be written no journal can be shared: nobody writes there either.
            connection.close()
            connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise NoHistory(f"{path}: {error}") from None
    return connection


class History:
    """An open history."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._rows = connection.execute

    def pools(self) -> list[str]:
        """Return the pools that had children."""
        return [pool for (pool,) in self._rows("SELECT DISTINCT pool FROM children ORDER BY pool")]

    def runs(self, pool: str, since: float, until: float, most: int) -> list[Run]:
        """Return the newest `most` runs of a pool that ended in between, child by child, oldest first."""
        names = {None: "", **dict(self._rows("SELECT id, name FROM tasks").fetchall())}
        found = self._rows(
            "SELECT child, task, runs, mix, place, ended, milliseconds, before_python, before_browser, "
            "before_shared, before_other, peak_python, peak_browser, peak_shared, peak_other, after_python, "
            "after_browser, after_shared, after_other, browser_seen, outcome FROM runs "
            "JOIN children ON children.id = child WHERE pool = ? AND ended >= ? AND ended < ? "
            "ORDER BY ended DESC LIMIT ?",
            (pool, since * 1000, until * 1000, most),
        ).fetchall()
        runs = [read_run(pool, row, names) for row in found]
        return sorted(runs, key=lambda run: (run.child, run.place, run.ended))

    def counts(self, since: float, until: float) -> dict[tuple[str, str], int]:
        """Return how many runs of each pool and task ended in between, without short ones of several names."""
        found = self._rows(
            "SELECT pool, coalesce(name, ''), sum(runs) FROM runs JOIN children ON children.id = child "
            "LEFT JOIN tasks ON tasks.id = task WHERE ended >= ? AND ended < ? AND mix IS NULL "
            "GROUP BY pool, task",
            (since * 1000, until * 1000),
        )
        return {(pool, task): count for pool, task, count in found}

    def totals(self) -> dict[tuple[str, str], tuple[float, int]]:
        """Return when each pool's task was first seen, and its runs since, as far back as days are kept."""
        found = self._rows(
            "SELECT pool, coalesce(name, ''), min(first), sum(runs) FROM task_days "
            "LEFT JOIN tasks ON tasks.id = task GROUP BY pool, task"
        )
        return {(pool, task): (first / 1000, runs) for pool, task, first, runs in found}

    def actions(self, since: float, until: float) -> list[Done]:
        """Return what was done in between."""
        found = self._rows(
            "SELECT at, kind, pool, child, name, line, done FROM actions LEFT JOIN tasks ON tasks.id = task "
            "WHERE at >= ? AND at < ? ORDER BY at",
            (since * 1000, until * 1000),
        )
        return [
            Done(at / 1000, kind, pool, child, task, line, bool(done))
            for at, kind, pool, child, task, line, done in found
        ]

    def budgets(self) -> dict[str, tuple[int, int | None]]:
        """Return what each child of a pool may hold, and its most tasks, as last known."""
        return {
            pool: (budget, most)
            for table in ("pool_minutes", "pool_samples")
            for pool, budget, most, _ in self._rows(
                f"SELECT pool, budget_bytes, max_tasks, max(at) FROM {table} GROUP BY pool"  # noqa: S608  # our names
            )
        }

    def shm_minutes(self, since: float, until: float) -> list[tuple[int, int]]:
        """Return the minutes since 1970 that were looked at, each with what lay in /dev/shm at its end."""
        found = self._rows(
            "SELECT minute, shm_files_bytes FROM (SELECT at / 60000 AS minute, shm_files_bytes, max(at) "
            "FROM container_samples WHERE at >= :since AND at < :until GROUP BY 1 UNION ALL "
            "SELECT at / 60000, shm_files_bytes, at FROM container_minutes WHERE at >= :since AND at < :until "
            "AND at < (SELECT coalesce(min(at), :until) FROM container_samples)) ORDER BY minute",
            {"since": since * 1000, "until": until * 1000},
        )
        return [(minute, int(size)) for minute, size in found]


def read_run(pool: str, row: Sequence[Any], names: Mapping[Any, str]) -> Run:
    """Return a run from its row."""
    child, task, runs, mix, place, ended, milliseconds = row[:7]
    tasks = (
        {names.get(int(key), ""): count for key, count in json.loads(mix).items()}
        if mix
        else {names.get(task, ""): runs}
    )
    return Run(
        pool=pool,
        child=child,
        tasks=tasks,
        place=place,
        ended=ended / 1000,
        seconds=milliseconds / 1000,
        before=Parts(*row[7:11]) if row[7] is not None else None,
        peak=Parts(*row[11:15]),
        after=Parts(*row[15:19]) if row[15] is not None else None,
        browser_seen=bool(row[19]),
        outcome=row[20],
    )


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
