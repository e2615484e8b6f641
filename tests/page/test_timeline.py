"""What is read of a history for the page's chart."""

import time
from pathlib import Path

import pytest

from recyclery.config.settings import HistorySettings
from recyclery.history.reader import MAX_TIMELINE_ACTIONS, SPANS, read_stretch, read_timeline
from recyclery.history.records import ActionRecord, ContainerSample, PoolSample, Record
from recyclery.history.retention import tidy
from recyclery.history.store import Store, stamp
from support.statuses import MIB

NOW = 1_800_000_000


def write(path: Path, *records: Record) -> Path:
    """Write a history of these."""
    store = Store(path)
    store.write(records)
    store.close()
    return path


def container(at: float, floor: int, usage: int = 500) -> ContainerSample:
    """The container at one moment, in MiB."""
    return ContainerSample(at, 1000 * MIB, usage * MIB, floor * MIB, 0, 0)


def pool(at: float, name: str, tree: int) -> PoolSample:
    """A pool at one moment, in MiB."""
    return PoolSample(at, name, tree * MIB, 0, 1, 0, None)


def test_a_step_has_the_highest_floor_and_the_mean_usage(tmp_path: Path) -> None:
    path = write(tmp_path / "h.db", container(NOW - 20, 100, 400), container(NOW - 19, 300, 500))
    line = read_timeline(path, SPANS["1h"], NOW)
    assert line.at == [NOW - 20]
    assert (line.floor_bytes, line.usage_bytes) == ([300 * MIB], [450 * MIB])
    assert line.limit_bytes == [1000 * MIB]
    assert line.kept_since == NOW - 20


def test_a_pool_that_was_not_there_in_a_step_has_none(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.db",
        *(container(NOW - at, 100) for at in (130, 70, 10)),
        pool(NOW - 130, "fast", 50),
        pool(NOW - 10, "fast", 60),
        pool(NOW - 10, "slow", 70),
    )
    line = read_timeline(path, SPANS["1h"], NOW)
    assert line.pools == {"fast": [50 * MIB, None, 60 * MIB], "slow": [None, None, 70 * MIB]}


@pytest.mark.parametrize("name", ["15m", "1h", "6h"])
def test_an_idle_pool_has_its_memory_in_every_step_though_it_is_recorded_seldom(
    tmp_path: Path, name: str
) -> None:
    # The recorder looks once a second: what is due after 30 s is recorded up to a second later.
    idle = (pool(NOW - 800 + at, "fast", 270) for at in range(0, 800, 31))
    path = write(tmp_path / "h.db", *(container(NOW - 800 + at, 400) for at in range(800)), *idle)
    line = read_timeline(path, SPANS[name], NOW)
    assert set(line.pools["fast"]) == {270 * MIB}
    assert len(line.at) > 10


def test_what_a_pool_held_just_before_the_span_is_what_it_holds_at_its_begin(tmp_path: Path) -> None:
    path = write(tmp_path / "h.db", pool(NOW - 920, "fast", 270), container(NOW - 899, 400))
    assert read_timeline(path, SPANS["15m"], NOW).pools == {"fast": [270 * MIB]}


def test_what_is_older_than_the_span_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path / "h.db", container(NOW - 7200, 1), container(NOW - 60, 2))
    assert read_timeline(path, SPANS["1h"], NOW).floor_bytes == [2 * MIB]
    assert read_timeline(path, SPANS["6h"], NOW).floor_bytes == [1 * MIB, 2 * MIB]


def test_a_long_span_is_read_from_minutes_and_ends_with_the_seconds_not_summed_up_yet(tmp_path: Path) -> None:
    path = write(tmp_path / "h.db", *(container(NOW - 600 + at, at) for at in range(0, 540, 10)))
    store = Store(path)
    tidy(store.connection, HistorySettings(), stamp(NOW - 60))
    store.write([container(NOW - 5, 999)])
    # Only the minutes have it now.
    store.connection.execute("DELETE FROM container_samples WHERE at < ?", (stamp(NOW - 120),))
    store.close()
    line = read_timeline(path, SPANS["6h"], NOW)
    assert line.floor_bytes[0] == 50 * MIB
    assert line.floor_bytes[-1] == 999 * MIB
    assert len(line.at) == len(set(line.at)) == 10


def test_a_stretch_of_the_past_is_read_by_seconds_as_long_as_all_of_them_are_kept(tmp_path: Path) -> None:
    path = write(tmp_path / "h.db", *(container(NOW - 600 + at, at) for at in range(600)))
    store = Store(path)
    tidy(store.connection, HistorySettings(), stamp(NOW))
    line = read_stretch(path, NOW - 300, NOW - 100, 100, 10)
    assert (line.step_seconds, line.at[0], line.at[-1]) == (2, NOW - 300, NOW - 100)
    store.connection.execute("DELETE FROM container_samples WHERE at < ?", (stamp(NOW - 200),))
    store.close()
    line = read_stretch(path, NOW - 300, NOW - 100, 100, 10)
    assert (line.step_seconds, line.at, line.floor_bytes[0]) == (
        60,
        [NOW - 300, NOW - 240, NOW - 180, NOW - 120],
        359 * MIB,
    )


@pytest.mark.parametrize("name", list(SPANS))
def test_no_span_has_more_steps_than_can_be_seen_apart(recorded: Path, name: str) -> None:
    line = read_timeline(recorded, SPANS[name], time.time())
    assert 50 <= len(line.at) <= 400
    assert [len(tree) for tree in line.pools.values()] == [len(line.at)] * 2


def test_of_actions_the_newest_are_told_and_all_are_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "h.db",
        *(
            ActionRecord(NOW - at, "retire", "slow", None, "t", "why", f"line {at}", at > 1, 0, 0)
            for at in range(1, MAX_TIMELINE_ACTIONS + 11)
        ),
    )
    line = read_timeline(path, SPANS["1h"], NOW)
    assert (len(line.actions), line.actions_in_all) == (MAX_TIMELINE_ACTIONS, MAX_TIMELINE_ACTIONS + 10)
    assert (line.actions[0].line, line.actions[0].done, line.actions[1].done) == ("line 1", False, True)
    assert line.actions[0].at == NOW - 1


def test_an_empty_history_has_no_steps(tmp_path: Path) -> None:
    line = read_timeline(write(tmp_path / "h.db"), SPANS["1h"], NOW)
    assert (line.at, line.kept_since) == ([], None)
