"""What ends a worker of Celery alone, on a real worker: it costs one message, and the others go on."""

import json
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker import state
from kombu import Connection

from recyclery_worker.parking import poison
from recyclery_worker.parking.poison import SAME_ERRORS, Guard, set_aside
from recyclery_worker.parking.records import DeadLetterStore
from support.bare_worker import BareWorker, bare_worker
from support.parked import run_parked
from support.redis_server import count_held, empty
from support.sending import sending_to
from support.waiting import wait_for

GONE = object()
MEMORY_LIMIT_BYTES = 64 << 20


@pytest.fixture(scope="module")
def shared(redis_url: str) -> Iterator[tuple[str, BareWorker]]:
    """A Redis with a worker that has one child, which every test needs to be alive and to have room."""
    empty(redis_url)
    with bare_worker(redis_url, memory_limit_bytes=MEMORY_LIMIT_BYTES) as worker:
        yield redis_url, worker


@pytest.fixture
def worker(shared: tuple[str, BareWorker]) -> BareWorker:
    return shared[1]


@pytest.fixture
def sending(shared: tuple[str, BareWorker]) -> Iterator[Celery]:
    with sending_to(shared[0]) as app:
        yield app


@pytest.fixture
def parked(shared: tuple[str, BareWorker]) -> Iterator[DeadLetterStore]:
    with redis.Redis.from_url(shared[0]) as client:
        client.delete("recyclery:parked")
        yield DeadLetterStore(client)


def message(sending: Celery, **changes: Any) -> dict[str, Any]:
    """Return a task's message as it is in the queue, with other headers, body, properties and so on."""
    sending.send_task("sample_app.add", (1, 2), queue="aside")
    with redis.Redis.from_url(sending.conf.broker_url) as client:
        content: dict[str, Any] = json.loads(client.rpop("aside") or b"")
    content["properties"]["delivery_info"]["routing_key"] = "low"
    for name, change in changes.items():
        if isinstance(change, Mapping) and isinstance(content.get(name), dict):
            content[name] = {
                key: value for key, value in {**content[name], **change}.items() if value is not GONE
            }
        else:
            content[name] = change
    return content


def put(parked: DeadLetterStore, *items: bytes) -> None:
    parked.client.lpush("low", *items)


def expect_alive(worker: BareWorker, sending: Celery, parked: DeadLetterStore) -> None:
    """Require that the worker has room for a task, and that nothing lies about."""
    assert sending.send_task("sample_app.add", (2, 3), queue="low").get(timeout=30) == 5
    assert worker.process.poll() is None
    wait_for(lambda: worker.stat().has_room and count_held(parked.client) == 0, "nothing is in hand")


NOT_MESSAGES = (
    b"null",
    b"[]",
    b'""',
    b"5",
    b"hello",
    b"",
    b"\xff\x00",
    b"{}",
    b"[" * 5000,
    b'{"properties": {}}',
)


@pytest.mark.parametrize("item", NOT_MESSAGES, ids=lambda item: repr(item[:20]))
def test_what_is_no_message_is_parked_as_it_is_and_ends_no_worker(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore, item: bytes
) -> None:
    put(parked, item)
    (task,) = wait_for(parked.list_parked, "it is parked")
    assert (bytes(task.message) if task.raw is None else task.raw) == item
    assert task.queues == ["low"]
    assert task.reason
    expect_alive(worker, sending, parked)


BODY_OF_5 = "NQ=="
BAD_PARTS: Mapping[str, dict[str, Any]] = {
    "one time limit": {"headers": {"timelimit": 5}},
    "three time limits": {"headers": {"timelimit": [1, 2, 3]}},
    "a time limit in words": {"headers": {"timelimit": ["soon", None]}},
    "no id": {"headers": {"id": GONE}},
    "a time limit beyond all numbers": {"headers": {"timelimit": [10**400, None]}},
    "a number as id": {"headers": {"id": 5}},
    "no text as id": {"headers": {"id": None}},
    "a list as id": {"headers": {"id": ["a"]}},
    "half a character as id": {"headers": {"id": "\ud800"}},
    "half a character as id, and a wrong time limit": {"headers": {"id": "\ud800", "timelimit": 5}},
    "a list as task": {"headers": {"task": []}},
    "a word for headers": {"headers": "none"},
    "an expiry without a date": {"headers": {"expires": []}},
    "a number of stamps": {"headers": {"stamped_headers": 5}},
    "a body of 5": {"body": BODY_OF_5},
    "an unknown encoding": {"properties": {"body_encoding": "rot13"}},
    "a value of no type": {"headers": {"origin": {"__type__": "uuid", "__value__": 5}}},
}


@pytest.mark.parametrize("name", BAD_PARTS)
def test_a_message_that_cannot_be_handled_is_parked_with_the_reason_and_ends_no_worker(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore, name: str
) -> None:
    item = json.dumps(message(sending, **BAD_PARTS[name])).encode()
    put(parked, item)
    (task,) = wait_for(parked.list_parked, "it is parked")
    assert "Error: " in task.reason
    expect_alive(worker, sending, parked)


def test_a_task_that_raises_memory_error_fails_and_the_tasks_behind_it_run(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    poison = sending.send_task("sample_app.exhaust_memory", queue="low")
    with pytest.raises(MemoryError):
        poison.get(timeout=30)
    expect_alive(worker, sending, parked)
    assert parked.list_deaths(poison.id) == []


def test_a_task_that_cannot_be_handed_to_the_pool_after_its_countdown_frees_its_place(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    late = {"eta": "2020-01-01T00:00:00+00:00", "timelimit": [1, 2, 3]}
    put(parked, json.dumps(message(sending, headers=late)).encode())
    (task,) = wait_for(parked.list_parked, "it is parked")
    assert "too many values" in task.reason
    expect_alive(worker, sending, parked)


def test_a_time_limit_that_passes_as_the_task_ends_frees_its_place_once(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    # Before the result is read, which then is nobody's.
    put(parked, *(json.dumps(message(sending, headers={"timelimit": [-5, None]})).encode() for _ in range(3)))
    expect_alive(worker, sending, parked)
    assert parked.list_parked() == []


def test_a_broadcast_that_is_no_message_is_dropped(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    for item in (b"null", b"{}", b"[" * 5000):
        assert parked.client.publish("/0.celery.pidbox", item) == 1
    assert sending.control.ping(timeout=10, limit=1)
    expect_alive(worker, sending, parked)


def test_a_remote_control_command_that_fails_in_the_loop_ends_no_worker(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    sending.control.broadcast("add_consumer", arguments={"queue": []}, reply=True, timeout=2)
    expect_alive(worker, sending, parked)


CONSUMER = SimpleNamespace(connection_errors=(redis.ConnectionError,), channel_errors=())


def refuse(_: object) -> None:
    raise LookupError("no pool")


def test_a_worker_that_stops_does_not_end_for_the_errors_that_its_messages_raise_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(state, "should_stop", 0)
    ordinary = SimpleNamespace(headers={"id": "a", "task": "b"}, payload=([], {}, {}))
    guard = Guard(SimpleNamespace(consumer=CONSUMER))
    for _ in range(SAME_ERRORS):
        guard.receive(refuse, ordinary)


def test_a_message_that_cannot_be_parked_while_redis_is_away_is_not_rejected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: object) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(poison, "describe_message", away)
    garbage = SimpleNamespace(headers=None, acknowledged=False, reject=lambda: pytest.fail("it is lost"))
    with pytest.raises(redis.ConnectionError):
        set_aside(SimpleNamespace(consumer=CONSUMER, hostname="slow@here"), garbage, ValueError("too bad"))


def test_a_message_of_another_broker_is_rejected_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with Connection("memory://") as connection:
        queue = connection.SimpleQueue("poison")
        queue.put({"some": "task"})
        taken = queue.get(timeout=1)
        set_aside(SimpleNamespace(consumer=CONSUMER, hostname="slow@here"), taken, ValueError("too bad"))
        assert taken.acknowledged
        assert queue.qsize() == 0
    assert "ValueError: too bad" in caplog.text
    assert "is rejected" in caplog.text


def test_a_parked_message_is_shown_put_back_as_it_was_and_dropped(
    shared: tuple[str, BareWorker], sending: Celery, parked: DeadLetterStore
) -> None:
    put(parked, b"\xff\x00")
    (task,) = wait_for(parked.list_parked, "it is parked")
    assert "UnicodeDecodeError" in task.reason or "JSONDecodeError" in task.reason
    assert task.reason in " ".join(run_parked(shared[0], "show", task.task_id).stdout.split())
    (listed,) = json.loads(run_parked(shared[0], "list", "--json").stdout)["parked"]
    assert listed["reason"] == task.reason
    assert run_parked(shared[0], "retry", task.task_id).returncode == 0
    again = wait_for(lambda: [each for each in parked.list_parked() if each.tag != task.tag], "it came again")
    assert again[0].raw == b"\xff\x00"
    assert run_parked(shared[0], "drop", "--all").returncode == 0
    assert parked.list_parked() == []
    expect_alive(shared[1], sending, parked)


def test_the_result_of_a_parked_message_says_why(
    worker: BareWorker, sending: Celery, parked: DeadLetterStore
) -> None:
    content = message(sending, body=BODY_OF_5)
    put(parked, json.dumps(content).encode())
    with pytest.raises(Exception, match="its message cannot be handled, so it is parked: TypeError"):
        sending.AsyncResult(content["headers"]["id"]).get(timeout=30)
    expect_alive(worker, sending, parked)


def test_a_message_larger_than_a_tenth_of_the_memory_limit_is_parked_unread_and_can_be_put_back_or_dropped(
    shared: tuple[str, BareWorker], sending: Celery, parked: DeadLetterStore
) -> None:
    most_bytes = MEMORY_LIMIT_BYTES // 10
    fits, is_too_large = b"[" * most_bytes, b"[" * (most_bytes + 1)
    put(parked, is_too_large)
    expect_alive(shared[1], sending, parked)
    (task,) = parked.list_parked()
    assert (
        task.reason
        == f"its {most_bytes + 1} bytes are more than a tenth of the memory limit, {most_bytes} bytes"
    )
    assert (task.queues, task.is_unread) == (["low"], True)
    assert f"{most_bytes + 1} bytes" in run_parked(shared[0], "show", task.task_id).stdout
    assert (
        json.loads(run_parked(shared[0], "show", "--json", task.task_id).stdout)["parked"][0]["message"] is None
    )
    assert run_parked(shared[0], "retry", task.task_id).returncode == 0
    (again,) = wait_for(parked.list_parked, "it is parked again")
    assert again.task_id != task.task_id
    assert parked.client.lrange(f"recyclery:parked:{again.tag}", 0, -1) == [is_too_large]
    assert run_parked(shared[0], "drop", "--all").returncode == 0
    assert parked.client.keys("recyclery:parked*") == []
    put(parked, fits)
    (task,) = wait_for(parked.list_parked, "it is parked for what it is")
    assert not task.is_unread
    expect_alive(shared[1], sending, parked)
