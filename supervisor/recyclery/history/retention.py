"""Keeps `history.db` small: seconds become minutes, runs become days, and what is too old or too much goes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MINUTE_MS = 60_000
# A change is brought in pieces, so that nobody who writes or reads waits long.
PIECE_ROWS = 20_000
# Begun to be emptied at this share of the cap, and until the other.
FULL_SHARE = 0.95
EMPTIED_SHARE = 0.85


@dataclass(frozen=True)
class Keeping:
    """How much is kept: the file's size, and the age of seconds, of minutes and runs, of days and actions."""

    max_bytes: int = 100 << 20
    seconds_ms: int = DAY_MS
    minutes_ms: int = 14 * DAY_MS
    totals_ms: int = 90 * DAY_MS


ROLLUPS = {
    "container_minutes": """
        INSERT OR REPLACE INTO container_minutes
        SELECT at / 60000 * 60000, max(limit_bytes), avg(usage_bytes), avg(floor_bytes), avg(shm_files_bytes),
               max(oom_kills), max(floor_bytes)
        FROM container_samples WHERE at >= :since AND at < :until GROUP BY at / 60000""",
    "pool_minutes": """
        INSERT OR REPLACE INTO pool_minutes
        SELECT at / 60000 * 60000, pool, avg(tree_bytes), avg(main_bytes), max(children), avg(budget_bytes),
               max(max_tasks), max(tree_bytes)
        FROM pool_samples WHERE at >= :since AND at < :until GROUP BY at / 60000, pool""",
    "child_minutes": """
        INSERT OR REPLACE INTO child_minutes
        SELECT at / 60000 * 60000, child, avg(python), avg(browser), avg(shared), avg(other),
               max(python + browser + shared + other)
        FROM child_samples WHERE at >= :since AND at < :until GROUP BY at / 60000, child""",
}

TASK_DAYS = """
    INSERT INTO task_days
    SELECT ended / 86400000, pool, task, min(ended), sum(runs),
           sum(CASE WHEN before_python IS NULL OR after_python IS NULL THEN 0 ELSE runs END),
           coalesce(sum(after_python - before_python), 0),
           coalesce(sum(CASE WHEN browser_seen THEN after_browser - before_browser END), 0),
           coalesce(sum(after_shared - before_shared), 0),
           coalesce(sum(CASE WHEN browser_seen THEN after_other - before_other END), 0),
           max(peak_python + peak_browser + peak_shared + peak_other)
    FROM runs JOIN children ON children.id = child
    WHERE runs.id > :since AND runs.id <= :until AND mix IS NULL
    GROUP BY 1, 2, 3
    ON CONFLICT DO UPDATE SET
        first = min(first, excluded.first),
        runs = runs + excluded.runs, measured = measured + excluded.measured,
        python = python + excluded.python, browser = browser + excluded.browser,
        shared = shared + excluded.shared, other = other + excluded.other,
        most_peak_bytes = max(most_peak_bytes, excluded.most_peak_bytes)"""

# In the order in which they go where the file is too large: the finest first, what it all sums up to last.
DATED = {
    "child_samples": ("at", "seconds_ms"),
    "pool_samples": ("at", "seconds_ms"),
    "container_samples": ("at", "seconds_ms"),
    "child_minutes": ("at", "minutes_ms"),
    "runs": ("ended", "minutes_ms"),
    "pool_minutes": ("at", "minutes_ms"),
    "container_minutes": ("at", "minutes_ms"),
    "actions": ("at", "totals_ms"),
}


def tidy(connection: sqlite3.Connection, keeping: Keeping, now_ms: int) -> None:
    """Do all that is due; raises sqlite3.Error."""
    roll_up(connection, now_ms)
    for table, (time, kept) in DATED.items():
        drop_before(connection, table, time, now_ms - getattr(keeping, kept))
    connection.execute("DELETE FROM task_days WHERE day < ?", ((now_ms - keeping.totals_ms) // DAY_MS,))
    if used_bytes(connection) > keeping.max_bytes * FULL_SHARE:
        shrink(connection, int(keeping.max_bytes * EMPTIED_SHARE))
    drop_unnamed(connection, now_ms)
    # As a script: `execute` takes one step of it, and a step gives back one page.
    connection.executescript("PRAGMA incremental_vacuum")


def roll_up(connection: sqlite3.Connection, now_ms: int) -> None:
    """Sum up the minutes that are over, and the runs of each day so far."""
    until = now_ms // MINUTE_MS * MINUTE_MS
    for table, statement in ROLLUPS.items():
        advance(connection, table, statement, until)
    newest = connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0]
    advance(connection, "task_days", TASK_DAYS, newest)


def advance(connection: sqlite3.Connection, what: str, statement: str, until: int) -> None:
    """Sum up from where the last time ended, and note where this one did, in one step."""
    found = connection.execute("SELECT upto FROM progress WHERE what = ?", (what,)).fetchone()
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(statement, {"since": found[0] if found else 0, "until": until})
        connection.execute("INSERT OR REPLACE INTO progress VALUES (?, ?)", (what, until))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def drop_before(connection: sqlite3.Connection, table: str, time: str, before_ms: int) -> None:
    """Delete what is older, in pieces."""
    while True:
        # The oldest rows are the first ones; a piece ends at the time of its last row.
        found = connection.execute(
            f"SELECT max({time}) FROM (SELECT {time} FROM {table} WHERE {time} < ? ORDER BY {time} LIMIT ?)",  # noqa: S608  # our names
            (before_ms, PIECE_ROWS),
        ).fetchone()[0]
        if found is None:
            return
        connection.execute(f"DELETE FROM {table} WHERE {time} <= ?", (found,))  # noqa: S608  # our names


def shrink(connection: sqlite3.Connection, most_bytes: int) -> None:
    """Delete the oldest of the finest until the rest is small enough."""
    for table, (time, _) in DATED.items():
        while used_bytes(connection) > most_bytes:
            found = connection.execute(
                f"SELECT max({time}) FROM (SELECT {time} FROM {table} ORDER BY {time} LIMIT ?)",  # noqa: S608  # our names
                (PIECE_ROWS,),
            ).fetchone()[0]
            if found is None:
                break
            connection.execute(f"DELETE FROM {table} WHERE {time} <= ?", (found,))  # noqa: S608  # our names


def drop_unnamed(connection: sqlite3.Connection, now_ms: int) -> None:
    """Delete children of whom nothing is kept any more, every hour; the newest may yet be told of."""
    found = connection.execute("SELECT upto FROM progress WHERE what = 'children'").fetchone()
    if found is not None and now_ms - found[0] < HOUR_MS:
        return
    tables = ("runs", "child_minutes", "child_samples", "actions")
    named = " UNION ".join(f"SELECT child FROM {table} WHERE child IS NOT NULL" for table in tables)  # noqa: S608  # our names
    connection.execute(
        f"DELETE FROM children WHERE seen < ? AND id NOT IN ({named})",  # noqa: S608  # our names
        (now_ms - HOUR_MS,),
    )
    connection.execute("INSERT OR REPLACE INTO progress VALUES ('children', ?)", (now_ms,))


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the file's size without the pages that are free."""
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    used: int = (pages - free) * size
    return used
