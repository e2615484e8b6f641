"""The tables of `history.db`, and the migrations between their versions. Times are milliseconds since 1970."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# A reader waits for a writer's checkpoint, a writer for another writer.
BUSY_TIMEOUT_SECONDS = 5.0
# A run's `place` is how many tasks its child had run before; what was not measured is NULL. If short tasks of
# several names ended together, `mix` counts them by task, as JSON, and `task` is one of them.
VERSION_1 = """
CREATE TABLE children (
    id INTEGER PRIMARY KEY, pool TEXT NOT NULL, pid INTEGER NOT NULL, start_ticks INTEGER NOT NULL,
    boot TEXT NOT NULL, seen INTEGER NOT NULL, UNIQUE (boot, pid, start_ticks, pool));
CREATE TABLE tasks (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE container_samples (
    at INTEGER PRIMARY KEY, limit_bytes INTEGER, usage_bytes INTEGER, floor_bytes INTEGER,
    shm_files_bytes INTEGER, oom_kills INTEGER);
CREATE TABLE pool_samples (
    at INTEGER, pool TEXT, tree_bytes INTEGER, main_bytes INTEGER, children INTEGER, budget_bytes INTEGER,
    max_tasks INTEGER, PRIMARY KEY (at, pool)) WITHOUT ROWID;
CREATE TABLE child_samples (
    at INTEGER, child INTEGER, python INTEGER, browser INTEGER, shared INTEGER, other INTEGER, task INTEGER,
    PRIMARY KEY (at, child)) WITHOUT ROWID;
CREATE TABLE container_minutes (
    at INTEGER PRIMARY KEY, limit_bytes INTEGER, usage_bytes INTEGER, floor_bytes INTEGER,
    shm_files_bytes INTEGER, oom_kills INTEGER, most_floor_bytes INTEGER);
CREATE TABLE pool_minutes (
    at INTEGER, pool TEXT, tree_bytes INTEGER, main_bytes INTEGER, children INTEGER, budget_bytes INTEGER,
    max_tasks INTEGER, most_tree_bytes INTEGER, PRIMARY KEY (at, pool)) WITHOUT ROWID;
CREATE TABLE child_minutes (
    at INTEGER, child INTEGER, python INTEGER, browser INTEGER, shared INTEGER, other INTEGER,
    most_bytes INTEGER, PRIMARY KEY (at, child)) WITHOUT ROWID;
CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, ended INTEGER, child INTEGER, task INTEGER, place INTEGER,
    runs INTEGER, mix TEXT, milliseconds INTEGER,
    before_python INTEGER, before_browser INTEGER, before_shared INTEGER, before_other INTEGER,
    peak_python INTEGER, peak_browser INTEGER, peak_shared INTEGER, peak_other INTEGER,
    after_python INTEGER, after_browser INTEGER, after_shared INTEGER, after_other INTEGER,
    browser_seen INTEGER, outcome TEXT);
CREATE INDEX runs_by_end ON runs (ended);
CREATE TABLE task_days (
    day INTEGER, pool TEXT, task INTEGER, first INTEGER, runs INTEGER, measured INTEGER, python INTEGER,
    browser INTEGER, shared INTEGER, other INTEGER, most_peak_bytes INTEGER,
    PRIMARY KEY (day, pool, task)) WITHOUT ROWID;
CREATE TABLE actions (
    id INTEGER PRIMARY KEY, at INTEGER, kind TEXT, pool TEXT, child INTEGER, task INTEGER, reason TEXT,
    line TEXT, done INTEGER, floor_bytes INTEGER, limit_bytes INTEGER);
CREATE INDEX actions_by_time ON actions (at);
CREATE TABLE progress (what TEXT PRIMARY KEY, upto INTEGER) WITHOUT ROWID
"""


class NewerSchema(Exception):
    """The file was written by a later version of Recyclery."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables of version 1."""
    for statement in VERSION_1.split(";"):
        connection.execute(statement)


# Each migrates a file from the version that is its index to the next one; append new ones.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (create_tables,)
SCHEMA_VERSION = len(MIGRATIONS)


def migrate(
    connection: sqlite3.Connection, migrations: tuple[Callable[[sqlite3.Connection], None], ...] = MIGRATIONS
) -> None:
    """Migrate a file to the present version in one transaction; raises NewerSchema."""
    with transaction(connection):
        version = read_schema_version(connection)
        if version > len(migrations):
            raise NewerSchema(f"written by a later version of Recyclery (schema {version})")
        for change in migrations[version:]:
            change(connection)
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit what is executed in the block, or roll it back if it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, such as a full disk, have already rolled it back.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def read_schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of a file; 0 if it is new."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version
