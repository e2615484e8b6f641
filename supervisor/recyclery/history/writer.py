"""Writes the history in a thread of its own: whoever has something to record never waits for a disk.

A disk that is full, read-only or gone costs the history, not the governor: the newest records stay in memory
and are written when it goes again. A file that is broken, or of a later version, is renamed and a new one
begun. Each is said once.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from recyclery.history.records import Record
from recyclery.history.retention import Keeping, tidy
from recyclery.history.schema import NewerSchema
from recyclery.history.store import Store, stamp

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
