"""Keeps `history.db` small: sums seconds up to minutes and runs to days, and deletes the oldest rows."""

import sqlite3

from recyclery.config.settings import HistorySettings
from recyclery.history.schema import transaction

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MINUTE_MS = 60_000
# Rows are deleted in batches, so that writers and readers never wait long.
PIECE_ROWS = 20_000
# At this share of the cap the oldest rows are deleted, down to the other share.
FULL_SHARE = 0.95
EMPTIED_SHARE = 0.85
FOREVER_MS = 1 << 62


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

# The time column and the kind of each table, in the order in which a file that is too large loses rows.
DATED = {
    "child_samples": ("at", "seconds"),
    "pool_samples": ("at", "seconds"),
    "container_samples": ("at", "seconds"),
    "child_minutes": ("at", "minutes"),
    "runs": ("ended", "minutes"),
    "pool_minutes": ("at", "minutes"),
    "container_minutes": ("at", "minutes"),
    "actions": ("at", "totals"),
}


def tidy(connection: sqlite3.Connection, limits: HistorySettings, now_ms: int) -> None:
    """Sum up and delete what is due; raises sqlite3.Error."""
    until = now_ms // MINUTE_MS * MINUTE_MS
    for table, statement in ROLLUPS.items():
        roll_up(connection, table, statement, until)
    newest_run = connection.execute("SELECT coalesce(max(id), 0) FROM runs").fetchone()[0]
    roll_up(connection, "task_days", TASK_DAYS, newest_run)
    oldest_ms = {
        "seconds": now_ms - round(limits.seconds_hours * HOUR_MS),
        "minutes": now_ms - round(limits.minutes_days * DAY_MS),
        "totals": now_ms - round(limits.totals_days * DAY_MS),
    }
    for table, (_, kind) in DATED.items():
        while delete_oldest(connection, table, oldest_ms[kind]):
            pass
    connection.execute("DELETE FROM task_days WHERE day < ?", (oldest_ms["totals"] // DAY_MS,))
    if used_bytes(connection) > limits.max_bytes * FULL_SHARE:
        for table in DATED:
            while used_bytes(connection) > limits.max_bytes * EMPTIED_SHARE:
                if not delete_oldest(connection, table, FOREVER_MS):
                    break
    delete_unused_children(connection, now_ms)
    # As a script: `execute` runs only one step of it, which frees one page.
    connection.executescript("PRAGMA incremental_vacuum")


def roll_up(connection: sqlite3.Connection, table: str, statement: str, until: int) -> None:
    """Sum up from where the last call ended, and save where this one did, in one transaction."""
    found = connection.execute("SELECT upto FROM progress WHERE what = ?", (table,)).fetchone()
    with transaction(connection):
        connection.execute(statement, {"since": found[0] if found else 0, "until": until})
        connection.execute("INSERT OR REPLACE INTO progress VALUES (?, ?)", (table, until))


def delete_oldest(connection: sqlite3.Connection, table: str, before_ms: int) -> bool:
    """Delete a batch of the oldest rows before a time; return whether there were any."""
    time = DATED[table][0]
    # A batch ends at the time of its last row.
    (last,) = connection.execute(
        f"SELECT max({time}) FROM (SELECT {time} FROM {table} WHERE {time} < ? ORDER BY {time} LIMIT ?)",  # noqa: S608  # our names
        (before_ms, PIECE_ROWS),
    ).fetchone()
    connection.execute(f"DELETE FROM {table} WHERE {time} <= ?", (last,))  # noqa: S608  # our names
    return last is not None


def delete_unused_children(connection: sqlite3.Connection, now_ms: int) -> None:
    """Delete children without rows elsewhere, once an hour; the newest may still get some."""
    found = connection.execute("SELECT upto FROM progress WHERE what = 'children'").fetchone()
    if found is not None and now_ms - found[0] < HOUR_MS:
        return
    tables = ("runs", "child_minutes", "child_samples", "actions")
    used = " UNION ".join(f"SELECT child FROM {table} WHERE child IS NOT NULL" for table in tables)  # noqa: S608  # our names
    statement = f"DELETE FROM children WHERE seen < ? AND id NOT IN ({used})"  # noqa: S608  # our names
    connection.execute(statement, (now_ms - HOUR_MS,))
    connection.execute("INSERT OR REPLACE INTO progress VALUES ('children', ?)", (now_ms,))


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the file's size without its free pages."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * size
