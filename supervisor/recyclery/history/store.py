"""Opens `history.db` for writing, and puts records into it."""

from __future__ import annotations

import json
import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from recyclery.history.records import (
    ActionRecord,
    ChildSample,
    ContainerSample,
    Parts,
    PoolSample,
    Record,
    RunRecord,
)
from recyclery.history.retention import Keeping, tidy
from recyclery.history.schema import NewerSchema, migrate
from recyclery.observe.snapshot import Owner

BUSY_SECONDS = 5.0
CACHE_KIB = 512
# The journal is cut back to this after each checkpoint.
JOURNAL_BYTES = 4 << 20
# So much of a random number names a start of the machine well enough.
BOOT_CHARACTERS = 8
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def open_store(path: Path) -> sqlite3.Connection:
    """Return a connection that writes, the tables of the present version made; raises sqlite3.Error."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its journal will get the same mode.
    path.touch(mode=0o600)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        # Only before the first table is made; later it is what the file says.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


class Store:
    """An open file, with the numbers that it has given to children and task names."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = open_store(path)
        self.inode = path.stat().st_ino
        self._boot = read_boot()
        self._children: dict[Owner, int] = {}
        self._tasks: dict[str, int] = {}

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def is_there(self) -> bool:
        """Tell whether the file that is open is still the one that others find."""
        try:
            return self.path.stat().st_ino == self.inode
        except OSError:
            return False

    def write(self, records: Iterable[Record]) -> None:
        """Write all of these or none; raises sqlite3.Error."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            for record in records:
                statement, values = self._row(record)
                execute(statement, values)
            execute("COMMIT")
        except BaseException:
            # Numbers given out in what is taken back are no numbers.
            self._children.clear()
            self._tasks.clear()
            if self.connection.in_transaction:
                execute("ROLLBACK")
            raise

    def _row(self, record: Record) -> tuple[str, tuple[object, ...]]:
        match record:
            case ContainerSample():
                return insert("container_samples", 6), (
                    stamp(record.at),
                    record.limit_bytes,
                    record.usage_bytes,
                    record.floor_bytes,
                    record.shm_files_bytes,
                    record.oom_kills,
                )
            case PoolSample():
                return insert("pool_samples", 7), (
                    stamp(record.at),
                    record.pool,
                    record.tree_bytes,
                    record.main_bytes,
                    record.children,
                    record.budget_bytes,
                    record.max_tasks_per_child,
                )
            case ChildSample():
                return insert("child_samples", 7), (
                    stamp(record.at),
                    self._child(record.owner),
                    *record.parts,
                    self._task(record.task),
                )
            case RunRecord():
                task, *others = record.tasks
                mix = {self._task(name): count for name, count in record.tasks.items()} if others else None
                return insert("runs", 22), (
                    None,
                    stamp(record.ended),
                    self._child(record.owner),
                    self._task(task),
                    record.place,
                    sum(record.tasks.values()),
                    json.dumps(mix) if mix else None,
                    stamp(record.seconds),
                    *(record.before or NOT_SEEN),
                    *record.peak,
                    *(record.after or NOT_SEEN),
                    record.browser_seen,
                    record.outcome,
                )
            case ActionRecord():
                return insert("actions", 11), (
                    None,
                    stamp(record.at),
                    record.kind,
                    record.pool,
                    self._child(record.owner) if record.owner is not None else None,
                    self._task(record.task),
                    record.reason,
                    record.line,
                    record.done,
                    record.floor_bytes,
                    record.limit_bytes,
                )

    def _child(self, owner: Owner) -> int:
        number = self._children.get(owner)
        if number is None:
            key = (self._boot, owner.pid, owner.start_ticks, owner.pool)
            found = self.connection.execute(
                "SELECT id FROM children WHERE boot = ? AND pid = ? AND start_ticks = ? AND pool = ?", key
            ).fetchone()
            if found is None:
                made = self.connection.execute(
                    "INSERT INTO children (boot, pid, start_ticks, pool, seen) VALUES (?, ?, ?, ?, ?)",
                    (*key, stamp(time.time())),
                )
                found = (made.lastrowid,)
            number = self._children[owner] = int(found[0])
        return number

    def _task(self, name: str | None) -> int | None:
        if name is None:
            return None
        number = self._tasks.get(name)
        if number is None:
            self.connection.execute("INSERT OR IGNORE INTO tasks (name) VALUES (?)", (name,))
            found = self.connection.execute("SELECT id FROM tasks WHERE name = ?", (name,)).fetchone()
            number = self._tasks[name] = int(found[0])
        return number


NOT_SEEN: tuple[None, ...] = (None,) * len(Parts._fields)


def insert(table: str, columns: int) -> str:
    """Return the statement that puts a row of so many values into a table."""
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"  # noqa: S608  # our own names


def stamp(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1000)


def read_boot() -> str:
    """Return what names this start of the machine; pids and start times are given out anew at the next."""
    try:
        return BOOT_ID.read_text()[:BOOT_CHARACTERS]
    except OSError:
        return ""


log = logging.getLogger("recyclery")

WRITE_EVERY_SECONDS = 2.0
TIDY_EVERY_SECONDS = 60.0
TRY_AGAIN_SECONDS = 30.0
# What is kept in memory while nothing can be written: some ten minutes of a large container.
KEPT_RECORDS = 10_000
# PID 1 gives the governor three seconds, which others need too.
LAST_WORDS_SECONDS = 1.0
BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class Writer:
    """Takes records at once, and writes them every now and then."""

    def __init__(self, path: Path, keeping: Keeping) -> None:
        self.keeping = keeping
        self._path = path
        self._inbox: queue.SimpleQueue[tuple[Record, ...] | None] = queue.SimpleQueue()
        self._waiting: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self._store: Store | None = None
        self._tidied = 0.0
        self._try_at = 0.0
        self._trouble = ""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def put(self, records: Iterable[Record]) -> None:
        """Take records to be written soon."""
        self._inbox.put(tuple(records))

    def close(self) -> None:
        """Write what is left, as far as that goes in a few seconds."""
        self._inbox.put(None)
        self._thread.join(LAST_WORDS_SECONDS)

    def _run(self) -> None:
        going = True
        while going:
            going = self._gather()
            self.write_waiting()
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()

    def _gather(self) -> bool:
        """Wait for records for a while; return whether there will be more."""
        until = time.monotonic() + WRITE_EVERY_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                records = self._inbox.get(timeout=left)
            except queue.Empty:
                break
            if records is None:
                return False
            self._waiting.extend(records)
        return True

    def write_waiting(self) -> None:
        """Write what waits, unless that failed a moment ago; keep house."""
        if time.monotonic() < self._try_at:
            return
        try:
            self._write()
        except NewerSchema as error:
            self._set_aside(str(error))
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in BROKEN:
                self._set_aside(str(error))
            else:
                self._wait(str(error))
        except OSError as error:
            self._wait(error.strerror or str(error))

    def _write(self) -> None:
        if self._store is not None and not self._store.is_there():
            log.warning("history: %s is gone; a new one is begun", self._path)
            self._drop_store()
        if self._store is None:
            self._store = Store(self._path)
        if self._waiting:
            self._store.write(self._waiting)
            self._waiting.clear()
        if time.monotonic() - self._tidied > TIDY_EVERY_SECONDS:
            tidy(self._store.connection, self.keeping, stamp(time.time()))
            self._tidied = time.monotonic()
        if self._trouble:
            log.info("history: %s is written again", self._path)
            self._trouble = ""

    def _set_aside(self, reason: str) -> None:
        """Rename the file, with its journal, and go on with a new one."""
        self._drop_store()
        aside = self._path.with_name(f"{self._path.name}.aside")
        try:
            self._path.replace(aside)
            for ending in ("-wal", "-shm"):
                journal = Path(f"{self._path}{ending}")
                with suppress(FileNotFoundError):
                    journal.replace(f"{aside}{ending}")
        except OSError as error:
            self._wait(f"{reason}; it cannot be renamed: {error.strerror}")
            return
        log.warning("history: %s: %s; it is now %s, and a new one is begun", self._path, reason, aside.name)

    def _wait(self, reason: str) -> None:
        """Keep what there is in memory for now; say so when that is news."""
        self._drop_store()
        self._try_at = time.monotonic() + TRY_AGAIN_SECONDS
        if reason != self._trouble:
            log.warning("history: %s cannot be written: %s; it is kept in memory only", self._path, reason)
        self._trouble = reason

    def _drop_store(self) -> None:
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()
        self._store = None
