"""The writer: whatever becomes of the file, whoever records goes on, and it is said."""

import logging
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from recyclery.config.settings import HistorySettings
from recyclery.history import store as writing
from recyclery.history.reader import SPANS, read_timeline
from recyclery.history.records import ContainerSample
from recyclery.history.schema import SCHEMA_VERSION
from recyclery.history.store import Store, Writer
from support.waiting import wait_for

LIMIT = 1 << 30
NOW = int(time.time())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write, and try again, without the usual pauses."""
    monkeypatch.setattr(writing, "WRITE_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(writing, "WRITE_RETRY_SECONDS", 0.02)


def sample(at: float) -> ContainerSample:
    return ContainerSample(NOW + at, LIMIT, 1, 1, 0, 0)


def written(path: Path) -> list[float]:
    """Return the times of all samples in a file; none while there is no such file."""
    try:
        # It may be set aside, and another one begun, at any moment.
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return [at / 1000 - NOW for (at,) in connection.execute("SELECT at FROM container_samples")]
    except sqlite3.DatabaseError:
        return []


def test_records_are_in_the_file_soon_and_after_the_end(tmp_path: Path) -> None:
    path = tmp_path / "state" / "history.db"
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: written(path) == [1], "the first is written")
    writer.put([sample(2)])
    writer.close()
    assert written(path) == [1, 2]


def test_a_broken_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"no database at all" * 1000)
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: written(path) == [1], "a new file is written")
    writer.close()
    assert (tmp_path / "history.db.aside").read_bytes().startswith(b"no database")
    assert "it is now history.db.aside" in caplog.text


def test_a_file_of_a_later_version_is_set_aside_whole(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    store = Store(path)
    store.write([sample(7)])
    store.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    store.close()
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: written(path) == [1], "a new file is written")
    writer.close()
    assert written(tmp_path / "history.db.aside") == [7]


def test_a_file_that_is_deleted_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: written(path) == [1], "written")
    for part in tmp_path.glob("history.db*"):
        part.unlink()
    writer.put([sample(2)])
    wait_for(lambda: written(path) == [2], "a new file is written")
    writer.close()


def test_what_cannot_be_written_stays_in_memory_until_it_can(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "state").write_text("a file where a folder should be")
    path = tmp_path / "state" / "history.db"
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: "kept in memory only" in caplog.text, "it is said")
    writer.put([sample(2)])
    (tmp_path / "state").unlink()
    wait_for(lambda: written(path) == [1, 2], "both are written")
    writer.close()
    assert caplog.text.count("kept in memory only") == 1
    assert "is written again" in caplog.text


def test_a_full_disk_is_survived_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "history.db"
    writer = Writer(path, HistorySettings())
    writer.put([sample(1)])
    wait_for(lambda: written(path) == [1], "written")
    assert writer._store is not None
    # As a full disk answers: not a page more.
    pages = writer._store.connection.execute("PRAGMA page_count").fetchone()[0]
    writer._store.connection.execute(f"PRAGMA max_page_count = {pages}")
    writer.put([sample(at) for at in range(2, 5000)])
    wait_for(lambda: "full" in caplog.text, "it is said")
    wait_for(lambda: len(written(path)) == 4999, "and written once there is room again")
    writer.close()


def test_the_records_that_wait_in_memory_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "KEPT_RECORDS", 10)
    (tmp_path / "state").write_text("")
    path = tmp_path / "state" / "history.db"
    writer = Writer(path, HistorySettings())
    writer.put([sample(at) for at in range(100)])
    wait_for(lambda: len(writer._waiting) == 10, "the newest wait")
    (tmp_path / "state").unlink()
    wait_for(lambda: written(path) == list(range(90, 100)), "they are written")
    writer.close()


def test_who_records_never_waits_for_a_file_that_is_locked(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    Store(path).close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    writer = Writer(path, HistorySettings())
    for at in range(1000):
        writer.put([sample(at)])
    holder.execute("COMMIT")
    holder.close()
    wait_for(lambda: len(written(path)) == 1000, "all is written after all")
    writer.close()
    assert read_timeline(path, SPANS["1h"], NOW + 1000).limit_bytes[-1] == LIMIT
