"""Messages that are given back: the same as kombu would put into the same lists, but a batch at a time."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Exchange, Queue

from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery import give_back as module
from recyclery_worker.delivery.give_back import Mover, give_back
from recyclery_worker.delivery.registry import Generation, new_generation, open_registry
from recyclery_worker.parking.records import DeadLetterStore


@pytest.fixture
def client(fresh_redis: str) -> Iterator[Any]:
    with redis.Redis.from_url(fresh_redis) as opened:
        yield opened


def hold(app: Celery, *bodies: Any, queue: str = "low", **options: Any) -> Generation:
    """Take messages as a worker does that then dies."""
    generation = new_generation("slow@there")
    with connected(app, **generation.keys) as channel:
        open_registry(channel).register(generation)
        for body in bodies:
            app.send_task("any", (body,), queue=queue, **options)
            assert channel.basic_get(queue)
        channel.qos._delivered.clear()
    return generation


def give_all_back(app: Celery, generation: Generation) -> int:
    with connected(app, **generation.keys) as channel:
        registry = open_registry(channel)
        return give_back(channel, registry, generation, registry.held(generation))


def lists(client: Any) -> dict[bytes, list[bytes]]:
    """Return the content of all queues."""
    keys: Any = [key for key in client.keys("*") if client.type(key) == b"list"]
    return {key: client.lrange(key, 0, -1) for key in keys}


# What Redis's own JSON would not give back as it was.
BODIES: tuple[Any, ...] = ([], {}, 0.1 + 0.2, 2**60 + 1, "ü/\x00", None)


def test_they_are_what_kombu_would_put_back_and_where(sender: Celery, client: Any) -> None:
    headers = {"empty": [], "digits": 2**60 + 1, "stamps": {"list": []}}
    generation = hold(sender, *BODIES, headers=headers, priority=6)
    entries: Any = client.hgetall(generation.keys["unacked_key"])
    index: Any = client.zrange(generation.keys["unacked_index_key"], 0, -1, withscores=True)
    assert give_all_back(sender, generation) == len(BODIES)
    ours = lists(client)
    assert client.keys("recyclery:*:unacked*") == []
    client.delete(*ours)
    client.hset(generation.keys["unacked_key"], mapping=entries)
    client.zadd(generation.keys["unacked_index_key"], dict(index))
    with connected(sender, **generation.keys) as channel:
        for tag in open_registry(channel).held(generation):
            channel.qos.restore_by_tag(tag, leftmost=False)
    assert lists(client) == ours
    assert sum(map(len, ours.values())) == len(BODIES)


def test_many_go_in_their_order(sender: Celery, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_MESSAGES", 3)
    generation = hold(sender, *range(10))
    order: Any = client.zrange(generation.keys["unacked_index_key"], 0, -1)
    assert give_all_back(sender, generation) == 10
    # Tasks are taken from the right.
    waiting: Any = client.lrange("low", 0, -1)
    assert [tag for tag in order for each in waiting if tag in each] == order
    assert all(tag in each for tag, each in zip(order, reversed(waiting), strict=True))


def test_what_is_due_is_there_from_the_beginning_and_ends_before_what_waits_for_its_time(
    sender: Celery, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = hold(sender, *range(3), countdown=3600)
    with connected(sender, **generation.keys) as channel:
        for countdown in (None, 3600):
            sender.send_task("any", ('"eta": null',), queue="low", countdown=countdown)
            assert channel.basic_get("low")
        channel.qos._delivered.clear()
    index = generation.keys["unacked_index_key"]
    *waiting, due, last = client.zrange(index, 0, -1)
    move_all, heads = Mover.move_all, []

    def move_all_and_look(mover: Mover, held: Any) -> int:
        moved = move_all(mover, held)
        heads.append(client.lindex("low", -1))
        return moved

    monkeypatch.setattr(Mover, "move_all", move_all_and_look)
    assert give_all_back(sender, generation) == 5
    assert due in heads[0]
    order = [due, *waiting, last]
    assert all(tag in each for tag, each in zip(order, reversed(client.lrange("low", 0, -1)), strict=True))


def test_large_messages_are_not_all_read_at_once(
    sender: Celery, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generation = hold(sender, *("x" * 10_000 for _ in range(5)))
    size = max(map(len, client.hvals(generation.keys["unacked_key"])))
    monkeypatch.setattr(module, "BATCH_BYTES", 2.5 * size)
    with connected(sender, **generation.keys) as channel:
        registry = open_registry(channel)
        tags = list(registry.held(generation))
        assert len(next(Mover(channel, registry, generation).read_all(tags))) == 2
    monkeypatch.setattr(module, "BATCH_BYTES", 1)
    assert give_all_back(sender, generation) == 5
    assert client.llen("low") == 5


@pytest.mark.parametrize("right", ["@scripting", "zscore", "hstrlen"])
def test_a_user_without_a_right_that_only_scripts_need_has_them_given_back_too(
    sender: Celery, client: Any, right: str
) -> None:
    generation = hold(sender, *range(3))
    client.execute_command("ACL", "SETUSER", "default", f"-{right}")
    try:
        assert give_all_back(sender, generation) == 3
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert client.llen("low") == 3
    assert client.keys("recyclery:*:unacked*") == []


@pytest.mark.parametrize("with_scripts", [True, False], ids=["script", "no-script"])
def test_one_that_was_taken_again_stays(sender: Celery, client: Any, with_scripts: bool) -> None:
    generation = hold(sender, "a", "b")
    with connected(sender, **generation.keys) as channel:
        registry = open_registry(channel)
        held = registry.held(generation)
        again, _ = held
        # By the same worker, so with the same tag.
        client.zadd(generation.keys["unacked_index_key"], {again: 2e9})
        if with_scripts:
            assert give_back(channel, registry, generation, held) == 1
        else:
            mover = Mover(channel, registry, generation)
            assert [mover.move_one(tag, held[tag]) for tag in held] == [False, True]
        assert list(registry.held(generation)) == [again]
    assert client.llen("low") == 1


def test_one_of_a_topic_exchange_goes_back_to_its_queue(sender: Celery, client: Any) -> None:
    """Although the connection that gives it back has not declared the exchange."""
    news = Queue("news", Exchange("papers", "topic"), routing_key="news.#")
    generation = new_generation("slow@there")
    with connected(sender, **generation.keys) as channel:
        bound: Any = news(channel)
        bound.declare()
        sender.send_task(
            "any", exchange="papers", routing_key="news.sport", connection=channel.connection.client
        )
        assert bound.get()
        channel.qos._delivered.clear()
    assert give_all_back(sender, generation) == 1
    assert client.llen("news") == 1


def test_one_whose_queue_is_bound_no_more_is_not_dropped(sender: Celery, client: Any) -> None:
    generation = hold(sender, "a")
    (tag, entry), *_ = client.hgetall(generation.keys["unacked_key"]).items()
    assert entry.endswith(b', "", "low"]')
    client.hset(generation.keys["unacked_key"], tag, entry.replace(b', "", "low"]', b', "gone", "low"]'))
    assert give_all_back(sender, generation) == 1
    assert client.llen("low") == 1


GARBAGE = (
    *(b"[garbage", b"\x80\x05]q\x00.", b"", b"null", b"[" * 100_000, b'[{}, "", "low"]', b"[1, 2]"),
    b'[{"properties": {}}, {}, []]',
    b'[{"properties": {}, "headers": {"__type__": "uuid", "__value__": 5}}, "", "low"]',
)


@pytest.mark.parametrize("with_scripts", [True, False], ids=["script", "no-script"])
def test_what_cannot_be_read_is_parked_as_it_is_and_the_others_go(
    sender: Celery, client: Any, with_scripts: bool
) -> None:
    generation = hold(sender, "a", "b")
    garbage = {f"tag{number}".encode(): entry for number, entry in enumerate(GARBAGE)}
    garbage[b"\xff\n"] = b"with a tag of any bytes"
    client.hset(generation.keys["unacked_key"], mapping=garbage)
    client.execute_command("ACL", "SETUSER", "default", "+@all" if with_scripts else "-@scripting")
    try:
        assert give_all_back(sender, generation) == 2
    finally:
        client.execute_command("ACL", "SETUSER", "default", "+@all")
    assert client.llen("low") == 2
    assert client.keys("recyclery:*:unacked*") == []
    parked = DeadLetterStore(client).list_parked()
    kept = [bytes(task.message) if task.raw is None else task.raw for task in parked]
    assert sorted(kept) == sorted(garbage.values())
    # Nobody knows to which queue it belongs.
    assert not any(DeadLetterStore(client).put_back(task) for task in parked)
    assert len(DeadLetterStore(client).list_parked()) == len(garbage)
