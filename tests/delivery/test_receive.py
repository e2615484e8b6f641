"""How a message comes from its queue into a worker's hand, each step by itself, on a real Redis."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty
from select import select
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.asynchronous import Hub, set_event_loop
from kombu.transport import redis as transport

from recyclery_worker.delivery import receive
from recyclery_worker.delivery.give_back import give_back
from recyclery_worker.delivery.receive import (
    AtomicReceive,
    ClientTracking,
    Unacked,
    UnackedQoS,
    receive_atomically,
)
from recyclery_worker.delivery.registry import Generation, Registry, new_generation
from recyclery_worker.parking.records import DeadLetterStore
from support.waiting import wait_for


@pytest.fixture
def client(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as connected:
        yield connected


@pytest.fixture
def generation(client: redis.Redis) -> Generation:
    """A worker that has its lease."""
    ours = new_generation("low@here")
    Registry(client).register(ours)
    return ours


@pytest.fixture
def unacked(generation: Generation, monkeypatch: pytest.MonkeyPatch) -> Unacked:
    """What that worker has in hand; channels made from now on are its own."""
    for kind in (transport.Transport, transport.SentinelTransport):
        monkeypatch.setattr(kind, "Channel", kind.Channel)
    monkeypatch.setattr(transport.Channel, "QoS", UnackedQoS)
    monkeypatch.setattr(AtomicReceive, "_refused", False)
    created = Unacked(generation)
    monkeypatch.setattr(UnackedQoS, "unacked", created, raising=False)
    receive_atomically()
    return created


class Worker:
    """A channel that consumes, without a loop."""

    def __init__(self, url: str, generation: Generation, queues: tuple[str, ...], **options: Any) -> None:
        no_ack = options.pop("no_ack", False)
        self.connection: Any = Connection(url, transport_options={**generation.keys, **options})
        self.channel: Any = self.connection.default_channel
        self.received: list[Any] = []
        consumer: Any = Consumer(
            self.channel,
            [Queue(name, routing_key=name) for name in queues],
            on_message=self.received.append,
            no_ack=no_ack,
        )
        consumer.consume()

    def send(self, body: str, queue: str = "low", **options: Any) -> None:
        with self.connection.Producer() as producer:
            producer.publish(body, routing_key=queue, serializer="json", **options)

    def ask(self) -> None:
        """Send Redis the question for a message."""
        self.connection.transport.cycle.on_poll_start()

    def hear(self) -> None:
        """Read its answer."""
        with suppress(Empty):
            self.channel.handlers["BRPOP"]()

    def receive(self) -> list[str]:
        """Do both, and return what has come up to now."""
        self.ask()
        self.hear()
        return [message.payload for message in self.received]


@pytest.fixture
def worker(fresh_redis: str, generation: Generation, unacked: Unacked) -> Iterator[Worker]:
    one = Worker(fresh_redis, generation, ("low",))
    with one.connection:
        yield one


def allow(client: Any, what: str) -> None:
    """Change what Redis's default user may do; `acl_setuser` would reset the rest of it."""
    client.execute_command("ACL", "SETUSER", "default", what)


def held(client: redis.Redis, generation: Generation) -> int:
    """Return how many messages a worker has under its name."""
    entries: Any = client.hlen(generation.keys["unacked_key"])
    return int(entries)


def test_a_received_message_is_unacknowledged_in_redis_before_its_worker_reads_it(
    worker: Worker, client: redis.Redis, generation: Generation
) -> None:
    worker.send("a")
    worker.ask()
    # The answer lies in the socket: Redis is done with the question.
    assert select([worker.channel.client.connection._sock], [], [], 10)[0]
    assert client.llen("low") == 0
    assert held(client, generation) == 1
    assert worker.received == []


def test_an_unacknowledged_message_is_written_as_kombu_writes_it(
    worker: Worker, client: redis.Redis, generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry() -> Any:
        (text,) = client.hgetall(generation.keys["unacked_key"]).values()
        payload, *way = json.loads(text)
        return payload["body"], payload["headers"], payload["properties"]["priority"], way

    worker.send("ü/ä", priority=3)
    assert worker.receive() == ["ü/ä"]
    ours = entry()
    worker.received[0].ack()
    monkeypatch.setattr(AtomicReceive, "_refused", True)
    worker.send("ü/ä", priority=3)
    worker.receive()
    assert entry() == ours


def test_an_atomically_received_message_is_acknowledged_and_rejected_as_usual(
    worker: Worker, client: redis.Redis, generation: Generation
) -> None:
    for body in ("a", "b"):
        worker.send(body)
        worker.receive()
    worker.received[0].ack()
    worker.received[1].requeue()
    assert held(client, generation) == 0
    assert client.llen("low") == 1


def test_a_worker_without_its_lease_takes_nothing(
    worker: Worker, client: redis.Redis, generation: Generation
) -> None:
    worker.send("a")
    Registry(client).fence(generation)
    assert worker.receive() == []
    assert client.llen("low") == 1


def test_the_queues_take_turns_and_priorities_come_first(
    fresh_redis: str, generation: Generation, unacked: Unacked
) -> None:
    worker = Worker(fresh_redis, generation, ("high", "low"), priority_steps=[0, 5])
    with worker.connection:
        for queue in ("high", "low"):
            for number in range(2):
                worker.send(f"{queue}{number}", queue, priority=5)
        worker.send("urgent", "low", priority=0)
        for _ in range(5):
            received = worker.receive()
    assert received[0] == "urgent"
    assert sorted(received[1:3]) == ["high0", "low0"]
    assert sorted(received[3:]) == ["high1", "low1"]


def test_all_keys_of_the_receive_script_have_the_users_prefix(
    fresh_redis: str, client: redis.Redis, unacked: Unacked
) -> None:
    ours = new_generation("low@here")
    Registry(client, "mine:").register(ours)
    unacked.generation = ours
    worker = Worker(fresh_redis, ours, ("low",), global_keyprefix="mine:")
    with worker.connection:
        worker.send("a")
        assert client.llen("mine:low") == 1
        assert worker.receive() == ["a"]
        assert client.hlen("mine:" + ours.keys["unacked_key"]) == 1


def test_a_consumer_that_acknowledges_nothing_has_nothing_in_hand(
    fresh_redis: str, client: redis.Redis, generation: Generation, unacked: Unacked
) -> None:
    worker = Worker(fresh_redis, generation, ("low",), no_ack=True)
    with worker.connection:
        worker.send("a")
        assert worker.receive() == ["a"]
        assert held(client, generation) == 0


def test_what_is_no_message_is_parked_and_what_follows_is_received(
    worker: Worker, client: redis.Redis, generation: Generation
) -> None:
    client.lpush("low", "no json")
    worker.receive()
    worker.send("a")
    assert worker.receive() == ["a"]
    (task,) = DeadLetterStore(client).list_parked()
    assert (task.raw, task.keys) == (b"no json", ["low"])
    assert client.llen("low") == 0
    assert held(client, generation) == 1


def test_what_is_no_message_stays_in_its_queue_where_it_cannot_be_parked(
    worker: Worker, client: redis.Redis
) -> None:
    client.set("recyclery:parked", "theirs")
    client.lpush("low", "null")
    with pytest.raises(redis.ResponseError, match="recyclery:parked is not Recyclery's"):
        worker.receive()
    assert client.lrange("low", 0, -1) == [b"null"]


@pytest.mark.parametrize(("field", "value"), [("exchange", "1e999"), ("routing_key", "NaN")])
def test_a_message_with_an_address_that_redis_cannot_write_holds_nothing_up(
    worker: Worker, client: redis.Redis, generation: Generation, field: str, value: str
) -> None:
    worker.send("a")
    item: Any = client.rpop("low")
    message = json.loads(item)
    message["properties"]["delivery_info"][field] = "unwritable"
    client.lpush("low", json.dumps(message).replace('"unwritable"', value))
    worker.send("b")
    worker.receive()
    assert worker.receive() == ["a", "b"]
    assert held(client, generation) == 2
    worker.received[0].ack()
    assert held(client, generation) == 1


def test_a_redis_that_forgot_the_script_is_given_it_again(worker: Worker, client: redis.Redis) -> None:
    worker.send("a")
    worker.receive()
    client.script_flush()
    worker.send("b")
    assert worker.receive() == ["a"]
    assert worker.receive() == ["a", "b"]


def test_a_redis_that_takes_no_writes_keeps_the_message(
    worker: Worker, client: redis.Redis, generation: Generation
) -> None:
    worker.send("a")
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.ResponseError, match="used memory > 'maxmemory'"):
            worker.receive()
    finally:
        client.config_set("maxmemory", 0)
    assert client.llen("low") == 1
    assert worker.receive() == ["a"]


def test_where_scripts_are_not_allowed_messages_come_as_kombu_takes_them(
    worker: Worker, client: redis.Redis, generation: Generation, caplog: pytest.LogCaptureFixture
) -> None:
    worker.send("a")
    allow(client, "-@scripting")
    try:
        worker.receive()
        assert worker.receive() == ["a"]
    finally:
        allow(client, "+@all")
    assert held(client, generation) == 1
    assert caplog.text.count("runs no script") == 1


def test_a_kombu_without_the_parts_for_it_receives_as_it_does(
    monkeypatch: pytest.MonkeyPatch, generation: Generation, unacked: Unacked, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport.Transport, "Channel", transport.Channel)
    monkeypatch.delattr(transport.Channel, "_brpop_read")
    receive_atomically()
    assert transport.Transport.Channel is transport.Channel
    assert "has no _brpop_read" in caplog.text


def test_an_empty_queue_is_waited_at_as_kombu_does_where_nothing_wakes_the_worker(worker: Worker) -> None:
    worker.receive()
    worker.ask()
    worker.send("a")
    worker.hear()
    assert [message.payload for message in worker.received] == ["a"]


@pytest.fixture
def hub() -> Iterator[Any]:
    loop: Any = Hub()
    set_event_loop(loop)
    yield loop
    loop.close()
    set_event_loop(None)


@pytest.fixture
def tracking(worker: Worker, hub: Any) -> Iterator[ClientTracking]:
    """What wakes the worker."""
    one = ClientTracking(worker.channel.pool, hub, worker.channel.poll_again)
    worker.channel.set_tracking(one)
    yield one
    one.close()


def test_a_worker_at_an_empty_queue_asks_for_nothing_and_is_woken(
    worker: Worker, client: redis.Redis, generation: Generation, hub: Any
) -> None:
    looks = threading.Event()
    # Asked while the worker was starting.
    worker.receive()
    worker.send("first")
    worker.receive()
    tracking = ClientTracking(worker.channel.pool, hub, looks.set)
    worker.channel.set_tracking(tracking)
    try:
        worker.receive()
        worker.ask()
        worker.send("a")
        assert select([tracking._socket], [], [], 10)[0]
        # It was not taken meanwhile, as it would be by a BRPOP: this worker might have died.
        assert client.llen("low") == 1
        tracking._on_readable()
        assert looks.is_set()
        worker.channel.poll_again()
        assert worker.receive() == ["first", "a"]
    finally:
        tracking.close()


def test_a_notification_that_comes_before_the_answer_is_not_lost(
    worker: Worker, tracking: ClientTracking
) -> None:
    worker.ask()
    assert select([worker.channel.client.connection._sock], [], [], 10)[0]
    worker.send("a")
    assert select([tracking._socket], [], [], 10)[0]
    tracking._on_readable()
    worker.hear()
    assert worker.receive() == ["a"]


@pytest.mark.usefixtures("tracking")
def test_a_queue_that_is_added_is_asked_for_at_once(worker: Worker) -> None:
    worker.receive()
    more: Any = Consumer(worker.channel, [Queue("more", routing_key="more")], on_message=worker.received.append)
    more.consume()
    worker.send("a", "more")
    assert worker.receive() == ["a"]


def test_a_message_whose_answer_was_lost_is_found(
    worker: Worker, client: redis.Redis, generation: Generation, unacked: Unacked
) -> None:
    worker.send("a")
    worker.ask()
    connection = worker.channel.client.connection
    assert select([connection._sock], [], [], 10)[0]
    # It may still be read.
    assert unacked.find_orphans(Registry(client)) == {}
    connection.disconnect()
    unacked.expect_no_more(worker.channel)
    unacked.give_back_orphans(worker.channel, unacked.find_orphans(Registry(client)))
    assert worker.receive() == ["a"]
    assert unacked.find_orphans(Registry(client)) == {}


@pytest.mark.parametrize("came_again", [False, True])
def test_a_message_that_is_rejected_when_its_connection_is_gone_is_an_orphan_unless_it_came_again(
    worker: Worker, fresh_redis: str, client: redis.Redis, unacked: Unacked, came_again: bool
) -> None:
    worker.send("a")
    worker.receive()
    (message,) = worker.received
    worker.connection.collect()
    another = Worker(fresh_redis, unacked.generation, ("low",))
    with another.connection:
        if came_again:
            unacked.move(another.channel, set())
            assert another.receive() == ["a"]
        # By Celery, after a task whose child died as the connection was lost.
        message.reject_log_error(receive.logger, (), requeue=True)
        assert len(unacked.find_orphans(Registry(client))) == (not came_again)
        assert len(unacked.messages) == came_again


@pytest.mark.parametrize("question", ["count_held", "held"])
def test_a_message_whose_answer_comes_while_orphans_are_sought_is_none(
    worker: Worker, client: redis.Redis, unacked: Unacked, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    worker.send("a")
    worker.ask()
    assert select([worker.channel.client.connection._sock], [], [], 10)[0]
    ask = getattr(Registry, question)

    def ask_and_let_the_loop_receive(registry: Registry, *args: Any) -> Any:
        answer = ask(registry, *args)
        worker.hear()
        return answer

    monkeypatch.setattr(Registry, question, ask_and_let_the_loop_receive)
    assert unacked.find_orphans(Registry(client)) == {}


def test_a_message_that_is_asked_for_while_orphans_are_sought_is_none(
    worker: Worker, client: redis.Redis, unacked: Unacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.send("a")
    held = Registry.held

    def let_the_loop_ask_first(registry: Registry, of: Generation) -> dict[str, float | None]:
        worker.ask()
        assert select([worker.channel.client.connection._sock], [], [], 10)[0]
        return held(registry, of)

    monkeypatch.setattr(Registry, "held", let_the_loop_ask_first)
    monkeypatch.setattr(Registry, "count_held", lambda *_: 1)
    assert unacked.find_orphans(Registry(client)) == {}


def test_a_message_that_is_taken_again_meanwhile_is_not_given_back_as_an_orphan(
    worker: Worker,
    client: redis.Redis,
    generation: Generation,
    unacked: Unacked,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    worker.send("a")
    worker.receive()
    (tag,) = unacked.messages
    held = Registry.held

    def held_before_it_was_rejected(registry: Registry, of: Generation) -> dict[str, float | None]:
        # Just after Redis was asked the worker's loop rejects the message, and has no room for another yet.
        before = held(registry, of)
        worker.channel.qos.reject(tag, requeue=True)
        return before

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "held", held_before_it_was_rejected)
        patch.setattr(Registry, "count_held", lambda *_: 2)
        orphans = unacked.find_orphans(Registry(client))
    assert list(orphans) == [tag]
    assert worker.receive() == ["a", "a"]
    unacked.give_back_orphans(worker.channel, orphans)
    assert client.llen("low") == 0
    assert list(unacked.messages) == [tag]


def test_much_that_a_lost_connection_held_is_given_back_later_in_its_order(
    worker: Worker, client: redis.Redis, unacked: Unacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "BATCH_MESSAGES", 2)
    for body in ("running", "a", "b", "c"):
        worker.send(body, correlation_id=body)
        worker.receive()
    unacked.move(worker.channel, {worker.received[0].delivery_tag})
    # The worker's loop goes on, and asks for what comes.
    assert client.llen("low") == 0
    assert len(unacked.messages) == 1
    unacked.expect(worker.channel)
    unacked.give_back_orphans(worker.channel, unacked.find_orphans(Registry(client)))
    worker.received.clear()
    for _ in range(4):
        received = worker.receive()
    assert received == ["a", "b", "c"]
    assert unacked.find_orphans(Registry(client)) == {}


def test_the_loop_does_not_list_much_that_a_lost_connection_held(
    worker: Worker, unacked: Unacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "BATCH_MESSAGES", 2)
    for body in ("a", "b", "c"):
        worker.send(body, correlation_id=body)
        worker.receive()
    monkeypatch.delattr(Registry, "held")
    unacked.move(worker.channel, set())
    assert unacked.messages == {}


def test_what_came_again_when_a_second_connection_is_lost_is_given_back_too(
    worker: Worker, client: redis.Redis, unacked: Unacked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "BATCH_MESSAGES", 2)
    for body in ("a", "b", "c"):
        worker.send(body, correlation_id=body)
        worker.receive()
    unacked.move(worker.channel, set())
    left = unacked.find_orphans(Registry(client))
    newest, *_ = left
    # A thread has begun with them when the second connection is lost.
    give_back(worker.channel, Registry(client), unacked.generation, {newest: left[newest]})
    assert worker.receive()[-1] == "c"
    unacked.move(worker.channel, set())
    unacked.give_back_orphans(worker.channel, left)
    unacked.give_back_orphans(worker.channel, unacked.find_orphans(Registry(client)))
    assert client.llen("low") == 3
    worker.received.clear()
    assert sorted([worker.receive(), worker.receive(), worker.receive()][-1]) == ["a", "b", "c"]
    assert unacked.find_orphans(Registry(client)) == {}


def test_little_that_a_lost_connection_held_is_given_back_before_anything_is_received(
    worker: Worker, client: redis.Redis, unacked: Unacked
) -> None:
    for body in ("a", "b"):
        worker.send(body, correlation_id=body)
        worker.receive()
    unacked.move(worker.channel, set())
    assert client.llen("low") == 2
    assert unacked.find_orphans(Registry(client)) == {}


def test_what_runs_is_not_given_back_for_its_age(
    fresh_redis: str, client: redis.Redis, generation: Generation, unacked: Unacked
) -> None:
    worker = Worker(fresh_redis, generation, ("low",), visibility_timeout=-1)
    with worker.connection:
        worker.send("a")
        assert worker.receive() == ["a"]
        worker.channel.qos.restore_visible(num=worker.channel.unacked_restore_limit, interval=1)
        assert client.llen("low") == 0
        assert held(client, generation) == 1


def test_a_process_killed_as_it_receives_loses_nothing(
    fresh_redis: str, client: redis.Redis, generation: Generation, unacked: Unacked
) -> None:
    """As above, with the real thing: a process that never gets to read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            receiver = Worker(fresh_redis, generation, ("low",))
            receiver.send("a")
            receiver.ask()
            os.write(writing, b".")
            signal.pause()
        finally:
            os._exit(1)
    assert os.read(reading, 1) == b"."
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(reading)
    os.close(writing)
    wait_for(lambda: client.llen("low") == 0, "Redis has seen the question")
    assert held(client, generation) == 1
