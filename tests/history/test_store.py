"""The file: written in whole batches, bounded, brought up to date, and read while it is written."""

import sqlite3
from pathlib import Path

import pytest

from recyclery.config.settings import HistorySettings
from recyclery.history import retention as upkeep
from recyclery.history.reader import NoHistory, open_history
from recyclery.history.records import ChildSample, ContainerSample, Parts, Record, RunRecord
from recyclery.history.retention import DAY_MS, tidy
from recyclery.history.schema import MIGRATIONS, SCHEMA_VERSION, NewerSchema, migrate, read_schema_version
from recyclery.history.store import Store
from recyclery.observe.snapshot import Owner

MIB = 1 << 20
OWNER = Owner("slow", 20, 2000)
NOON = 1_700_000_000


def run_at(at: float, *, left: int = MIB, task: str = "leak", place: int = 0) -> RunRecord:
    return RunRecord(
        OWNER, {task: 1}, place, at, 1.0, Parts(50 * MIB), Parts(60 * MIB), Parts(50 * MIB + left), True, "done"
    )


def sample_at(at: float) -> ContainerSample:
    return ContainerSample(at, 1 << 30, 500 * MIB, 400 * MIB, 0, 0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "history.db")


def test_what_was_written_is_read_while_the_writer_has_the_file_open(store: Store) -> None:
    store.write([run_at(NOON)])
    with open_history(store.path) as history:
        (run,) = history.runs("slow", 0, NOON + 1, 10)
    assert (run.tasks, run.before, run.after) == ({"leak": 1}, Parts(50 * MIB), Parts(51 * MIB))


def test_short_tasks_of_several_names_are_read_as_they_were(store: Store) -> None:
    mixed = RunRecord(OWNER, {"a": 2, "b": 1}, 0, NOON, 1.0, None, Parts(), None, False, "done")
    store.write([mixed])
    with open_history(store.path) as history:
        (run,) = history.runs("slow", 0, NOON + 1, 10)
    assert (run.tasks, run.before, run.after) == ({"a": 2, "b": 1}, None, None)


def test_short_tasks_of_several_names_are_counted_for_none_of_them(store: Store) -> None:
    mixed = RunRecord(OWNER, {"leak": 2, "b": 1}, 0, NOON, 1.0, None, Parts(), None, False, "done")
    store.write([run_at(NOON), mixed])
    tidy(store.connection, HistorySettings(), NOON * 1000)
    with open_history(store.path) as history:
        assert history.counts(0, NOON + 1) == {("slow", "leak"): 1}
        assert history.totals() == {("slow", "leak"): (NOON, 1)}


def test_a_batch_that_fails_is_taken_back_whole(store: Store) -> None:
    bad = sample_at(NOON + 1)._replace(limit_bytes=object())  # type: ignore[arg-type]  # cannot be stored
    with pytest.raises(sqlite3.Error):
        store.write([run_at(NOON), bad])
    store.write([run_at(NOON + 2)])
    with open_history(store.path) as history:
        assert [run.ended for run in history.runs("slow", 0, NOON + 9, 10)] == [NOON + 2]


def test_a_reader_cannot_write(store: Store) -> None:
    with (
        pytest.raises(NoHistory, match="readonly"),
        open_history(store.path) as history,
    ):
        history.rows("DELETE FROM runs")


def test_the_file_and_its_journal_are_their_owners_alone(store: Store) -> None:
    store.write([run_at(NOON)])
    files = list(store.path.parent.glob("history.db*"))
    assert len(files) == 3
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_history_in_a_folder_that_cannot_be_written_is_read(store: Store, tmp_path: Path) -> None:
    store.write([run_at(NOON)])
    store.close()
    tmp_path.chmod(0o500)
    try:
        with open_history(store.path) as history:
            assert len(history.runs("slow", 0, NOON + 1, 10)) == 1
    finally:
        tmp_path.chmod(0o700)


def test_a_missing_history_is_reported_with_where_it_would_be(tmp_path: Path) -> None:
    with (
        pytest.raises(NoHistory, match=r"there is no history.*RECYCLERY_STATE_DIR"),
        open_history(tmp_path / "none"),
    ):
        pass


def test_samples_by_second_are_summed_up_to_minutes_and_deleted(store: Store) -> None:
    store.write([sample_at(NOON + second) for second in range(180)])
    tidy(store.connection, HistorySettings(seconds_hours=1 / 60), (NOON + 180) * 1000)
    (minutes,) = store.connection.execute("SELECT count(*) FROM container_minutes").fetchone()
    (seconds,) = store.connection.execute("SELECT count(*) FROM container_samples").fetchone()
    assert minutes >= 2
    assert 55 <= seconds <= 61


def test_each_run_is_summed_up_to_its_day_once(store: Store) -> None:
    store.write([run_at(NOON), run_at(NOON + 1, left=3 * MIB)])
    tidy(store.connection, HistorySettings(), NOON * 1000)
    store.write([run_at(NOON + 2)])
    tidy(store.connection, HistorySettings(), NOON * 1000)
    tidy(store.connection, HistorySettings(), NOON * 1000)
    found = store.connection.execute("SELECT runs, measured, python FROM task_days").fetchall()
    assert found == [(3, 3, 5 * MIB)]


def test_days_outlive_the_runs_they_sum_up(store: Store) -> None:
    store.write([run_at(NOON)])
    tidy(store.connection, HistorySettings(), NOON * 1000)
    tidy(store.connection, HistorySettings(), NOON * 1000 + 15 * DAY_MS)
    with open_history(store.path) as history:
        assert history.runs("slow", 0, NOON * 2, 10) == []
        assert history.totals() == {("slow", "leak"): (NOON, 1)}


def test_a_file_that_grows_past_its_cap_loses_the_finest_first_and_gets_smaller(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "PIECE_ROWS", 500)
    samples: list[Record] = [
        ChildSample(NOON + number, OWNER, Parts(number << 12, number << 11, number << 10), "leak")
        for number in range(6_000)
    ]
    store.write([*samples, run_at(NOON)])
    before = upkeep.used_bytes(store.connection)
    tidy(store.connection, HistorySettings(max_bytes=before // 2), (NOON + 6_000) * 1000)
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert store.path.stat().st_size <= before // 2
    with open_history(store.path) as history:
        assert len(history.runs("slow", 0, NOON * 2, 10)) == 1


def test_children_of_whom_nothing_is_kept_are_forgotten(store: Store) -> None:
    store.write([run_at(NOON)])
    store.connection.execute("INSERT INTO children VALUES (NULL, 'old', 1, 1, '', 0)")
    tidy(store.connection, HistorySettings(), (NOON + 1) * 1000)
    assert store.connection.execute("SELECT pool FROM children").fetchall() == [("slow",)]


def test_an_older_file_is_brought_up_to_date_and_keeps_what_it_has(tmp_path: Path) -> None:
    def add_column(connection: sqlite3.Connection) -> None:
        connection.execute("ALTER TABLE runs ADD COLUMN more INTEGER")

    store = Store(tmp_path / "history.db")
    store.write([run_at(NOON)])
    migrate(store.connection, (*MIGRATIONS, add_column))
    assert read_schema_version(store.connection) == SCHEMA_VERSION + 1
    assert store.connection.execute("SELECT ended, more FROM runs").fetchall() == [(NOON * 1000, None)]


def test_a_change_of_version_that_fails_changes_nothing(store: Store) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("DROP TABLE runs")
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError):
        migrate(store.connection, (*MIGRATIONS, fail))
    assert read_schema_version(store.connection) == SCHEMA_VERSION
    assert store.connection.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_file_of_a_later_version_is_not_touched(store: Store) -> None:
    store.connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(NewerSchema, match="later version"):
        migrate(store.connection)
