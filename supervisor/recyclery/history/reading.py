"""Reads `history.db` while it is written, and after its writer is dead. Times are seconds since 1970."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

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
