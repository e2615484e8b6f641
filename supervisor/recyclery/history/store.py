"""Writes records to `history.db`, in a thread."""

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

from recyclery.config.settings import HistorySettings
from recyclery.history.records import (
    ActionRecord,
    ChildSample,
    ContainerSample,
    Parts,
    PoolSample,
    Record,
    RunRecord,
)
from recyclery.history.retention import tidy
from recyclery.history.schema import BUSY_TIMEOUT_SECONDS, NewerSchema, migrate, transaction
from recyclery.observe.snapshot import Owner

WRITER_CACHE_KIB = 512
# Each checkpoint truncates the journal to this size.
JOURNAL_BYTES = 4 << 20
# Enough of the boot id to identify a boot.
BOOT_CHARACTERS = 8
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NOT_MEASURED: tuple[None, ...] = (None,) * len(Parts._fields)
WRITE_EVERY_SECONDS = 2.0
TIDY_EVERY_SECONDS = 60.0
WRITE_RETRY_SECONDS = 30.0
# Kept in memory while nothing can be written: about ten minutes of a large container.
KEPT_RECORDS = 10_000
# PID 1 gives the governor three seconds to stop, which it needs for other work too.
WRITER_CLOSE_SECONDS = 1.0
BROKEN_FILE_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}

log = logging.getLogger("recyclery")


class Store:
    """An open file, and the numbers of its children and task names. Raises sqlite3.Error and NewerSchema."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.connection = connect_for_writing(path)
        self.inode = path.stat().st_ino
        # Pids and start times repeat after a reboot.
        try:
            self._boot = BOOT_ID.read_text()[:BOOT_CHARACTERS]
        except OSError:
            self._boot = ""
        self._children: dict[Owner, int] = {}
        self._tasks: dict[str, int] = {}

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def is_current(self) -> bool:
        """Return whether the path still leads to the open file."""
        try:
            return self.path.stat().st_ino == self.inode
        except OSError:
            return False

    def write(self, records: Iterable[Record]) -> None:
        """Write all of the records or none."""
        try:
            with transaction(self.connection):
                for record in records:
                    table, values = self._row(record)
                    self.connection.execute(
                        f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * len(values))})",  # noqa: S608  # our names
                        values,
                    )
        except BaseException:
            # The rollback removed the rows that these numbers belong to.
            self._children.clear()
            self._tasks.clear()
            raise

    def _row(self, record: Record) -> tuple[str, tuple[object, ...]]:
        """Return the table and the columns of a record."""
        match record:
            case ContainerSample():
                return "container_samples", (stamp(record.at), *record[1:])
            case PoolSample():
                return "pool_samples", (stamp(record.at), *record[1:])
            case ChildSample(at, owner, parts, task):
                return "child_samples", (stamp(at), self._child(owner), *parts, self._task(task))
            case ActionRecord():
                at, kind, pool, actor, task, *columns = record
                child = self._child(actor) if actor is not None else None
                return "actions", (None, stamp(at), kind, pool, child, self._task(task), *columns)
            case RunRecord():
                task, *others = record.tasks
                mix = {self._task(name): count for name, count in record.tasks.items()} if others else None
                whose = self._child(record.owner), self._task(task), record.place
                runs = sum(record.tasks.values()), json.dumps(mix) if mix else None, stamp(record.seconds)
                memory = *(record.before or NOT_MEASURED), *record.peak, *(record.after or NOT_MEASURED)
                seen = record.browser_seen, record.outcome
                return "runs", (None, stamp(record.ended), *whose, *runs, *memory, *seen)

    def _child(self, owner: Owner) -> int:
        if owner not in self._children:
            key = (self._boot, owner.pid, owner.start_ticks, owner.pool)
            self.connection.execute(
                "INSERT OR IGNORE INTO children (boot, pid, start_ticks, pool, seen) VALUES (?, ?, ?, ?, ?)",
                (*key, stamp(time.time())),
            )
            found = self.connection.execute(
                "SELECT id FROM children WHERE boot = ? AND pid = ? AND start_ticks = ? AND pool = ?", key
            )
            (self._children[owner],) = found.fetchone()
        return self._children[owner]

    def _task(self, name: str | None) -> int | None:
        if name is None:
            return None
        if name not in self._tasks:
            self.connection.execute("INSERT OR IGNORE INTO tasks (name) VALUES (?)", (name,))
            found = self.connection.execute("SELECT id FROM tasks WHERE name = ?", (name,))
            (self._tasks[name],) = found.fetchone()
        return self._tasks[name]


def connect_for_writing(path: Path) -> sqlite3.Connection:
    """Return a connection to a file with the present schema; raises sqlite3.Error and NewerSchema."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Its journal will get the same mode.
    path.touch(mode=0o600)
    connection = sqlite3.connect(
        path, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        for setting in (
            # Takes effect only before the first table is created.
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            f"journal_size_limit = {JOURNAL_BYTES}",
            f"cache_size = -{WRITER_CACHE_KIB}",
        ):
            connection.execute(f"PRAGMA {setting}")
        migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def stamp(seconds: float) -> int:
    """Return whole milliseconds."""
    return round(seconds * 1000)


class Writer:
    """Queues records and writes them in batches, in a thread of its own."""

    def __init__(self, path: Path, limits: HistorySettings) -> None:
        self.limits = limits
        self._path = path
        self._inbox: queue.SimpleQueue[tuple[Record, ...] | None] = queue.SimpleQueue()
        self._waiting: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self._store: Store | None = None
        self._tidied = 0.0
        self._retry_at = 0.0
        self._problem = ""
        self._thread = threading.Thread(target=self._run, name="history", daemon=True)
        self._thread.start()

    def put(self, records: Iterable[Record]) -> None:
        """Queue records; never blocks."""
        self._inbox.put(tuple(records))

    def close(self) -> None:
        """Write what is left, if that takes no longer than WRITER_CLOSE_SECONDS."""
        self._inbox.put(None)
        self._thread.join(WRITER_CLOSE_SECONDS)

    def _run(self) -> None:
        is_open = True
        while is_open:
            is_open = self._collect()
            if time.monotonic() >= self._retry_at:
                self._try_to_write()
        self._drop_store()

    def _collect(self) -> bool:
        """Collect records for WRITE_EVERY_SECONDS; return False once the writer is closed."""
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

    def _try_to_write(self) -> None:
        try:
            self._write()
        except NewerSchema as error:
            self._set_aside(str(error))
        except sqlite3.Error as error:
            if error.sqlite_errorcode & 0xFF in BROKEN_FILE_CODES:
                self._set_aside(str(error))
            else:
                self._retry_later(str(error))
        except OSError as error:
            self._retry_later(error.strerror or str(error))

    def _write(self) -> None:
        if self._store is not None and not self._store.is_current():
            log.warning("history: %s is gone; a new one is begun", self._path)
            self._drop_store()
        if self._store is None:
            self._store = Store(self._path)
        if self._waiting:
            self._store.write(self._waiting)
            self._waiting.clear()
        if time.monotonic() - self._tidied > TIDY_EVERY_SECONDS:
            tidy(self._store.connection, self.limits, stamp(time.time()))
            self._tidied = time.monotonic()
        if self._problem:
            log.info("history: %s is written again", self._path)
            self._problem = ""

    def _set_aside(self, reason: str) -> None:
        """Rename the file and its journal, so that the next write creates a new one."""
        self._drop_store()
        aside = self._path.with_name(f"{self._path.name}.aside")
        try:
            self._path.replace(aside)
            for ending in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    Path(f"{self._path}{ending}").replace(f"{aside}{ending}")
        except OSError as error:
            self._retry_later(f"{reason}; it cannot be renamed: {error.strerror}")
            return
        log.warning("history: %s: %s; it is now %s, and a new one is begun", self._path, reason, aside.name)

    def _retry_later(self, reason: str) -> None:
        """Keep the records in memory; log a reason once."""
        self._drop_store()
        self._retry_at = time.monotonic() + WRITE_RETRY_SECONDS
        if reason != self._problem:
            log.warning("history: %s cannot be written: %s; it is kept in memory only", self._path, reason)
        self._problem = reason

    def _drop_store(self) -> None:
        if self._store is not None:
            with suppress(sqlite3.Error):
                self._store.close()
        self._store = None
