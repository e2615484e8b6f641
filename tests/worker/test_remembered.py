"""The file in which a worker keeps what it was told."""

import errno
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from celery.worker import state
from celery.worker.control import Panel

from recyclery_worker.control import remembered
from recyclery_worker.control.remembered import Entry, Remembered, kept, recall, what_is_told


@pytest.fixture
def memory(tmp_path: Path) -> Remembered:
    """The memory of the worker in the slot `slow`."""
    return Remembered(tmp_path / "slow", "slow")


@pytest.fixture(autouse=True)
def knows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's state, as at a worker's start."""
    monkeypatch.setattr(state, "revoked", type(state.revoked)(maxlen=50_000, expires=10_800))
    monkeypatch.setattr(state, "revoked_stamps", {})


def worker() -> Any:
    """A worker before its consumer starts."""
    app = Celery("app", set_as_current=False)

    @app.task(name="add", shared=False)
    def add() -> None:
        """Do nothing."""

    app.amqp.queues.select(["low", "bulk"])
    consumer = SimpleNamespace(app=app, task_consumer=None, reset_rate_limits=lambda: None)
    return SimpleNamespace(app=app, consumer=consumer)


def revoked(*ids: str, at: float | None = None) -> list[Entry]:
    """Entries of revoked ids, now or at a time."""
    return [Entry(time.monotonic() if at is None else at, "revoked", each) for each in ids]


def names(memory: Remembered) -> list[str]:
    """What is known, oldest first."""
    return [entry.name for entry in memory.read().values()]


def test_a_revoke_is_in_the_file_when_the_command_begins(memory: Remembered) -> None:
    def revoke(state: object, task_id: str, terminate: bool = False) -> None:
        assert names(memory) == [task_id]
        raise SystemExit

    with pytest.raises(SystemExit):
        kept(memory, "revoke", revoke)(object(), task_id="a", terminate=True)


def test_a_setting_that_the_worker_refuses_is_not_kept(memory: Remembered) -> None:
    def rate_limit(state: object, task_name: str, rate_limit: str) -> dict[str, str]:
        return {"error": "Invalid rate limit string"} if rate_limit == "many" else {"ok": "set"}

    command = kept(memory, "rate_limit", rate_limit)
    command(object(), task_name="add", rate_limit="3/s")
    assert command(object(), task_name="add", rate_limit="many") == {"error": "Invalid rate limit string"}
    assert [entry.value for entry in memory.read().values()] == ["3/s"]


def test_a_command_with_wrong_arguments_fails_as_without_us(memory: Remembered) -> None:
    def revoke(state: object, task_id: str) -> None:
        raise AssertionError

    with pytest.raises(TypeError, match="unexpected keyword argument 'task'"):
        kept(memory, "revoke", revoke)(object(), task="a")
    assert memory.read() == {}


def test_ids_that_another_worker_brings_are_kept_where_they_are_new() -> None:
    state.revoked.add("a")
    told = what_is_told("hello", {"from_node": "fast@host", "revoked": ["a", "b"]})
    assert list(told) == [("revoked", "b", None)]


def test_the_newest_of_two_settings_counts_whichever_worker_heard_it(
    tmp_path: Path, memory: Remembered
) -> None:
    other = Remembered(tmp_path / "slow", "slow-b")
    other.add([Entry(2.0, "queue", "low", {}), Entry(2.0, "rate_limit", "add", "1/s")])
    memory.add([Entry(1.0, "queue", "low", None), Entry(3.0, "rate_limit", "add", "2/s")])
    assert [entry.value for entry in memory.read().values()] == [{}, "2/s"]
    memory.rewrite(memory.read().values())
    other.add(revoked("a"))
    assert names(memory) == names(other) == ["low", "add", "a"]


def test_revokes_expire_and_are_as_many_as_celery_keeps(
    memory: Remembered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "REVOKES_MAX", 3)
    now = time.monotonic()
    memory.add([Entry(0.0, "queue", "bulk", None), Entry(now, "stamp", "customer", "7")])
    memory.add([*revoked("old", at=now - state.REVOKE_EXPIRES - 1), *revoked("a", "b", "c", "a")])
    assert names(memory) == ["bulk", "b", "c", "a"]


def test_the_file_does_not_grow_without_bound(
    memory: Remembered, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(state, "REVOKES_MAX", 10)
    for number in range(100):
        memory.add(revoked(f"id-{number}"))
        assert (tmp_path / "slow/slow").read_bytes().count(b"\n") <= 30
    assert names(memory) == [f"id-{number}" for number in range(90, 100)]


@pytest.mark.parametrize(
    "broken", [b"", b"\0" * 99, b'[1.0,"revo', b"\xff\xfe", b'[1,"sung","a"]', b"{}", b'[1.0,"revoked",null]']
)
def test_broken_lines_are_left_out_with_a_line(
    memory: Remembered, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: bytes
) -> None:
    memory.add(revoked("a"))
    with (tmp_path / "slow/slow").open("ab") as file:
        file.write(b"\n" + broken)
    memory.add(revoked("b"))
    assert names(memory) == ["a", "b"]
    assert [record.message[-33:] for record in caplog.records] == [
        "left out 1 lines that cannot be read"[-33:]
    ] * bool(broken)


def test_a_file_that_cannot_be_read_or_written_costs_only_its_content(
    memory: Remembered, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "slow/slow").mkdir(parents=True)
    assert memory.read() == {}
    memory.rewrite(revoked("a"))
    memory.add(revoked("b"))
    assert [record.message.partition(": [Errno ")[0] for record in caplog.records] == [
        "what the worker before this one was told is not known",
        "what this worker was told is not kept for the next one",
        "what this worker was told is not kept for the next one",
    ]


def test_on_a_full_disk_a_command_is_carried_out_and_a_line_says_that_it_is_not_kept(
    memory: Remembered, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def open_full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", open_full)
    command = kept(memory, "revoke", lambda state, task_id: {"ok": task_id})
    assert command(object(), task_id="a") == {"ok": "a"}
    assert "is not kept for the next one: [Errno 28] No space left on device" in caplog.text


def test_a_worker_does_as_the_one_before_it_was_told() -> None:
    new = worker()
    recall(
        new,
        [
            *revoked("a"),
            Entry(1.0, "stamp", "customer", "7"),
            Entry(1.0, "rate_limit", "add", "3/s"),
            Entry(1.0, "time_limit", "add", {"soft_time_limit": 1, "time_limit": 2}),
            Entry(1.0, "queue", "bulk", None),
            Entry(1.0, "queue", "extra", {"exchange": "news", "exchange_type": "topic", "routing_key": "x.#"}),
        ],
    )
    task, queues = new.app.tasks["add"], new.app.amqp.queues
    stamps: Any = state.revoked_stamps
    assert ("a" in state.revoked, stamps) == (True, {"customer": ["7"]})
    assert (task.rate_limit, task.soft_time_limit, task.time_limit) == ("3/s", 1, 2)
    assert list(queues.consume_from) == ["low", "extra"]
    assert (queues["extra"].exchange.type, queues["extra"].routing_key) == ("topic", "x.#")


def test_what_makes_no_sense_keeps_no_worker_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    new = worker()
    nonsense = [
        Entry(1.0, "rate_limit", "add", "many"),
        Entry(1.0, "rate_limit", "gone", "3/s"),
        Entry(1.0, "time_limit", "add", 5),
        Entry(1.0, "queue", "extra", {1: 2}),
        Entry(1.0, "queue", "news", 5),
        Entry(1.0, "stamp", "customer", [[]]),
    ]
    recall(new, [*nonsense, *revoked("a")])
    assert (new.app.tasks["add"].rate_limit, "a" in state.revoked) == (None, True)
    assert "left out what the worker before this one was told: Entry(at=1.0, kind='rate_limit'" in caplog.text


def test_celery_has_every_command_that_is_kept() -> None:
    assert {*remembered.REVOKES, *remembered.SETTINGS} <= set(Panel.data)
