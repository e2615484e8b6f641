"""Reads `history.db` while it is written and after its writer has died. Times are seconds since 1970."""

from __future__ import annotations

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from recyclery.history.records import REPEAT_SECONDS, Parts
from recyclery.history.schema import BUSY_TIMEOUT_SECONDS, SCHEMA_VERSION, read_schema_version

# From steps of this length on, the sums of each minute are read instead of every second.
MINUTE_SECONDS = 60
MAX_TIMELINE_ACTIONS = 200
# SQLite's cache counts as the governor's memory.
READER_CACHE_KIB = 256


class NoHistory(Exception):
    """There is no history to read; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """One run of a task, or several consecutive short ones: a stored `RunRecord`."""

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


class TimelineAction(msgspec.Struct, frozen=True):
    """One action, or an OOM kill."""

    at: float
    kind: str
    pool: str
    task: str | None
    line: str
    done: bool


class StoredAction(TimelineAction, frozen=True):
    """One action with the child that it was about."""

    child: int | None


class TimeSpan(NamedTuple):
    """A span of time, and the length of the steps in which it is drawn."""

    seconds: int
    step_seconds: int


SPANS = {
    "15m": TimeSpan(900, 3),
    "1h": TimeSpan(3600, 10),
    "6h": TimeSpan(6 * 3600, 60),
    "24h": TimeSpan(24 * 3600, 300),
    "7d": TimeSpan(7 * 24 * 3600, 1800),
}


@dataclass(frozen=True)
class Timeline:
    """The memory in each step with samples: the mean of usage, and the maximum of everything else.

    `at` are the beginnings of the steps. A pool without samples in a step has None. `actions` are the newest;
    `actions_in_all` counts all.
    """

    since: float
    until: float
    step_seconds: int
    kept_since: float | None
    at: list[int]
    usage_bytes: list[int]
    floor_bytes: list[int]
    limit_bytes: list[int]
    pools: dict[str, list[int | None]]
    actions: list[TimelineAction]
    actions_in_all: int


@contextmanager
def open_history(path: Path) -> Iterator[HistoryReader]:
    """Open a history read-only for the block; raises NoHistory."""
    if not path.exists():
        raise NoHistory(
            f"{path}: there is no history; `recyclery run` writes it in RECYCLERY_STATE_DIR, or name "
            "a file with --history"
        )
    connection = connect_read_only(path)
    try:
        version = read_schema_version(connection)
        if version > SCHEMA_VERSION:
            raise NoHistory(f"{path}: written by a later version of Recyclery; read it with that one")
        if version < SCHEMA_VERSION:
            raise NoHistory(f"{path}: of an older version; the governor of this version migrates it")
        yield HistoryReader(connection)
    except sqlite3.Error as error:
        raise NoHistory(f"{path}: {error}; the governor sets such a file aside and starts a new one") from None
    finally:
        connection.close()


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Return a connection that cannot write; raises NoHistory."""
    address = f"file:{quote(str(path))}?mode=ro"
    try:
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS)
        try:
            connection.execute("SELECT 1 FROM sqlite_master")
        except sqlite3.OperationalError:
            # A read-only folder has no room for a shared journal, and no writer either.
            connection.close()
            connection = sqlite3.connect(f"{address}&immutable=1", uri=True)
    except sqlite3.Error as error:
        raise NoHistory(f"{path}: {error}") from None
    return connection


class HistoryReader:
    """An open history."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.rows = connection.execute

    def pools(self) -> list[str]:
        """Return the pools that had children."""
        return [pool for (pool,) in self.rows("SELECT DISTINCT pool FROM children ORDER BY pool")]

    def runs(self, pool: str, since: float, until: float, most: int) -> list[StoredRun]:
        """Return the newest `most` runs of a pool that ended in this time, by child, oldest first."""
        names: dict[int | None, str] = {None: "", **dict(self.rows("SELECT id, name FROM tasks").fetchall())}
        found = self.rows(
            "SELECT child, task, runs, mix, place, ended, milliseconds, browser_seen, outcome, "
            "before_python, before_browser, before_shared, before_other, peak_python, peak_browser, "
            "peak_shared, peak_other, after_python, after_browser, after_shared, after_other FROM runs "
            "JOIN children ON children.id = child WHERE pool = ? AND ended >= ? AND ended < ? "
            "ORDER BY ended DESC LIMIT ?",
            (pool, since * 1000, until * 1000, most),
        )
        runs = [
            StoredRun(
                pool=pool,
                child=child,
                tasks={names.get(int(key), ""): number for key, number in json.loads(mix).items()}
                if mix
                else {names.get(task, ""): count},
                place=place,
                ended=ended / 1000,
                seconds=milliseconds / 1000,
                before=read_parts(memory[:4]),
                peak=Parts(*memory[4:8]),
                after=read_parts(memory[8:]),
                browser_seen=bool(browser_seen),
                outcome=outcome,
            )
            for child, task, count, mix, place, ended, milliseconds, browser_seen, outcome, *memory in found
        ]
        return sorted(runs, key=lambda run: (run.child, run.place, run.ended))

    def counts(self, since: float, until: float) -> dict[tuple[str, str], int]:
        """Return the number of runs by pool and task, without short ones of several names."""
        found = self.rows(
            "SELECT pool, coalesce(name, ''), sum(runs) FROM runs JOIN children ON children.id = child "
            "LEFT JOIN tasks ON tasks.id = task WHERE ended >= ? AND ended < ? AND mix IS NULL "
            "GROUP BY pool, task",
            (since * 1000, until * 1000),
        )
        return {(pool, task): count for pool, task, count in found}

    def totals(self) -> dict[tuple[str, str], tuple[float, int]]:
        """Return when each task of each pool was first seen, and its runs since, while days are kept."""
        found = self.rows(
            "SELECT pool, coalesce(name, ''), min(first), sum(runs) FROM task_days "
            "LEFT JOIN tasks ON tasks.id = task GROUP BY pool, task"
        )
        return {(pool, task): (first / 1000, runs) for pool, task, first, runs in found}

    def actions(self, since: float, until: float) -> list[StoredAction]:
        """Return the actions of this time."""
        found = self.rows(
            "SELECT at / 1000.0, kind, pool, name, line, done, child FROM actions "
            "LEFT JOIN tasks ON tasks.id = task WHERE at >= ? AND at < ? ORDER BY at",
            (since * 1000, until * 1000),
        )
        return [
            StoredAction(at, kind, pool, task, line, bool(done), child)
            for at, kind, pool, task, line, done, child in found
        ]

    def budgets(self) -> dict[str, tuple[int, int | None]]:
        """Return the latest budget of each pool's children, and its max_tasks_per_child."""
        return {
            pool: (budget, max_tasks)
            for table in ("pool_minutes", "pool_samples")
            for pool, budget, max_tasks, _ in self.rows(
                f"SELECT pool, budget_bytes, max_tasks, max(at) FROM {table} GROUP BY pool"  # noqa: S608  # our names
            )
        }

    def shm_minutes(self, since: float, until: float) -> list[tuple[int, int]]:
        """Return the size of the files in /dev/shm at the end of each minute since 1970 with samples."""
        found = self.rows(
            "SELECT minute, shm_files_bytes FROM (SELECT at / 60000 AS minute, shm_files_bytes, max(at) "
            "FROM container_samples WHERE at >= :since AND at < :until GROUP BY 1 UNION ALL "
            "SELECT at / 60000, shm_files_bytes, at FROM container_minutes WHERE at >= :since AND at < :until "
            "AND at < (SELECT coalesce(min(at), :until) FROM container_samples)) ORDER BY minute",
            {"since": since * 1000, "until": until * 1000},
        )
        return [(minute, int(size)) for minute, size in found]


def read_parts(columns: list[Any]) -> Parts | None:
    """Return the memory in these columns; None if it was not measured."""
    return Parts(*columns) if columns[0] is not None else None


# Minutes as far as they are summed up, then seconds.
CONTAINER_STEPS = """
    SELECT at / :step, avg(usage), max(floor), max(most) FROM (
        SELECT at, usage_bytes AS usage, most_floor_bytes AS floor, limit_bytes AS most FROM container_minutes
        WHERE at >= :since AND at < :summed AND at <= :until
        UNION ALL
        SELECT at, usage_bytes, floor_bytes, limit_bytes FROM container_samples
        WHERE at >= max(:since, :summed) AND at <= :until)
    GROUP BY 1 ORDER BY 1"""
POOL_STEPS = """
    SELECT at / :step, pool, max(tree) FROM (
        SELECT at, pool, most_tree_bytes AS tree FROM pool_minutes
        WHERE at >= :since AND at < :summed AND at <= :until
        UNION ALL
        SELECT at, pool, tree_bytes FROM pool_samples WHERE at >= max(:since, :summed) AND at <= :until)
    GROUP BY 1, 2 ORDER BY 2"""
KEPT_SINCE = """
    SELECT min(at) / 1000.0 FROM (SELECT min(at) AS at FROM container_minutes
    UNION ALL SELECT min(at) FROM container_samples)"""
NEWEST_ACTIONS = """
    SELECT at / 1000.0, kind, pool, name, line, done FROM actions LEFT JOIN tasks ON tasks.id = task
    WHERE at >= :since AND at <= :until ORDER BY at DESC LIMIT :most"""
COUNT_ACTIONS = "SELECT count(*) FROM actions WHERE at >= :since AND at <= :until"
SUMMED_UP_TO = "SELECT upto FROM progress WHERE what = 'container_minutes'"


def read_timeline(path: Path, span: TimeSpan, now: float) -> Timeline:
    """Read a span of time up to now; raises NoHistory."""
    with open_history(path) as history:
        history.rows(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
        return read_steps(history, span, now, MAX_TIMELINE_ACTIONS)


def read_stretch(path: Path, since: float, until: float, most_steps: int, most_actions: int) -> Timeline:
    """Read any time in at most `most_steps` steps, of whole minutes unless all of its seconds are kept.

    Raises NoHistory.
    """
    seconds = math.ceil(until - since)
    step = math.ceil(seconds / most_steps) or 1
    with open_history(path) as history:
        (kept_since,) = history.rows("SELECT min(at) FROM container_samples").fetchone()
        if step > MINUTE_SECONDS or kept_since is None or kept_since > since * 1000:
            step = math.ceil(step / MINUTE_SECONDS) * MINUTE_SECONDS
        return read_steps(history, TimeSpan(seconds, step), until, most_actions)


def count_repeats(step_seconds: int) -> int:
    """Return for how many further steps a pool's sample holds: one that does not change is recorded seldom."""
    return math.ceil(REPEAT_SECONDS / step_seconds) + 1 if step_seconds < REPEAT_SECONDS else 0


def latest(values: Mapping[int, int], step: int, repeats: int) -> int | None:
    """Return the value of a step, or of the last one that has one, up to `repeats` steps before."""
    return next((values[known] for known in range(step, step - repeats - 1, -1) if known in values), None)


def read_steps(history: HistoryReader, span: TimeSpan, until: float, most_actions: int) -> Timeline:
    """Read a span of time up to `until`."""
    step_ms, until_ms = span.step_seconds * 1000, round(until * 1000)
    # Steps begin at multiples of their length, so that they are the same each time.
    since_ms = (until_ms - span.seconds * 1000) // step_ms * step_ms
    summed = history.rows(SUMMED_UP_TO).fetchone() if span.step_seconds >= MINUTE_SECONDS else None
    values = {
        "step": step_ms,
        "since": since_ms,
        "until": until_ms,
        "summed": int(summed[0]) if summed else 0,
        "most": most_actions,
    }
    rows = history.rows(CONTAINER_STEPS, values).fetchall()
    trees: dict[str, dict[int, int]] = defaultdict(dict)
    for step, pool, tree in history.rows(POOL_STEPS, values | {"since": since_ms - REPEAT_SECONDS * 1000}):
        trees[pool][step] = int(tree)
    repeats = count_repeats(span.step_seconds)
    return Timeline(
        since=since_ms / 1000,
        until=until_ms / 1000,
        step_seconds=span.step_seconds,
        kept_since=history.rows(KEPT_SINCE).fetchone()[0],
        at=[step * span.step_seconds for step, *_ in rows],
        usage_bytes=[int(usage) for _, usage, _, _ in rows],
        floor_bytes=[int(floor) for _, _, floor, _ in rows],
        limit_bytes=[int(limit) for _, _, _, limit in rows],
        pools={pool: [latest(found, step, repeats) for step, *_ in rows] for pool, found in trees.items()},
        actions=[
            TimelineAction(at, kind, pool, task, line, bool(done))
            for at, kind, pool, task, line, done in history.rows(NEWEST_ACTIONS, values)
        ],
        actions_in_all=history.rows(COUNT_ACTIONS, values).fetchone()[0],
    )
