"""The parked list in a real Redis: what moves, moves whole, and to where it came from."""

from typing import Any

import msgspec
import pytest
import redis
from celery import Celery
from kombu import Connection, Queue
from msgspec.structs import replace

from recyclery_worker.broker.connection import connected
from recyclery_worker.link import DeathReport
from recyclery_worker.parking.admission import parked_task, read_in_flight, why_not_parked
from recyclery_worker.parking.records import (
    DeadLetterStore,
    Death,
    ParkedTask,
    StartedRun,
    in_flight_key,
    open_dead_letters,
)

DEATH = Death(at=1.0, how="signal 9", node="slow@here", pid=7)


class InHand:
    """What a worker has of a message, as far as parking asks."""

    id, name, type, argsrepr, kwargsrepr = "some-id", "shown", "proj.task", "(1,)", "{}"

    def __init__(self, message: Any) -> None:
        self.message = message


def take(channel: Any, url: str, options: dict[str, Any], priority: int = 4) -> tuple[InHand, ParkedTask]:
    """Send a message with a priority, and take it in hand."""
    with Connection(url, transport_options=options) as sending:
        producer: Any = sending.Producer()
        producer.publish({}, routing_key="low", declare=[Queue("low")], priority=priority)
    got: list[Any] = []
    consumer = channel.connection.client.Consumer(
        [Queue("low")], channel=channel, on_message=got.append, accept=["json"]
    )
    with consumer:
        channel.connection.client.drain_events(timeout=5)
    request = InHand(got[0])
    return request, parked_task(request, "slow@here")


@pytest.mark.parametrize("prefix", ["", "ours:"])
def test_a_task_goes_from_hand_to_the_list_and_back_to_its_queue_with_its_priority(
    fresh_redis: str, prefix: str
) -> None:
    options = {"global_keyprefix": prefix}
    app = Celery("sender", broker=fresh_redis)
    app.conf.broker_transport_options = options
    with connected(app) as channel, redis.Redis.from_url(fresh_redis) as client:
        request, task = take(channel, fresh_redis, options)
        lot = open_dead_letters(channel)
        assert client.hlen(f"{prefix}unacked") == 1
        assert lot.park(task, channel.unacked_key, channel.unacked_index_key)
        assert [
            client.hlen(f"{prefix}unacked"),
            client.zcard(f"{prefix}unacked_index"),
            lot.count_parked(),
        ] == [
            0,
            0,
            1,
        ]
        # What kombu does when the worker says it is done.
        request.message.ack()
        assert lot.put_back(lot.list_parked()[0])
        assert client.llen(f"{prefix}low\x06\x163") == 1
        assert lot.count_parked() == 0
        assert request.message._raw == take_again(channel)._raw


def take_again(channel: Any) -> Any:
    return channel.basic_get("low")


def test_a_message_that_was_given_to_another_worker_is_not_parked(fresh_redis: str) -> None:
    app = Celery("sender", broker=fresh_redis)
    with connected(app) as channel:
        _, task = take(channel, fresh_redis, {})
        channel.qos.restore_by_tag(task.tag)
        lot = open_dead_letters(channel)
        assert not lot.park(task, channel.unacked_key, channel.unacked_index_key)
        assert lot.count_parked() == 0


def test_nothing_is_moved_where_the_key_of_the_list_is_another_programs(fresh_redis: str) -> None:
    with connected(Celery("sender", broker=fresh_redis)) as channel:
        _, task = take(channel, fresh_redis, {})
        lot = open_dead_letters(channel)
        lot.client.set("recyclery:parked", "theirs")
        for park in (lot.park, lot.park_received):
            with pytest.raises(redis.ResponseError, match="recyclery:parked is not Recyclery's: DEL it"):
                park(task, channel.unacked_key, channel.unacked_index_key)
        assert (lot.client.hlen("unacked"), lot.client.zcard("unacked_index")) == (1, 1)


def test_only_the_first_of_two_who_decide_moves_it(fresh_redis: str) -> None:
    app = Celery("sender", broker=fresh_redis)
    with connected(app) as channel, redis.Redis.from_url(fresh_redis) as client:
        _, task = take(channel, fresh_redis, {}, priority=0)
        lot = open_dead_letters(channel)
        lot.park(task, channel.unacked_key, channel.unacked_index_key)
        assert [lot.put_back(task), lot.put_back(task), lot.remove(task)] == [True, False, False]
        assert client.llen("low") == 1


def test_a_death_that_is_recorded_twice_counts_once(lot: DeadLetterStore) -> None:
    for death in (DEATH, replace(DEATH, at=2.0)):
        lot.record_death(StartedRun("tag/0", "id"), death)
    lot.record_death(StartedRun("tag/1", "id"), DEATH)
    assert len(lot.list_deaths("id")) == 2
    assert lot.list_deaths("other") == []


def test_deaths_are_forgotten_with_time_but_not_those_of_a_parked_task(fresh_redis: str) -> None:
    app = Celery("sender", broker=fresh_redis)
    with connected(app) as channel, redis.Redis.from_url(fresh_redis) as client:
        _, task = take(channel, fresh_redis, {})
        lot = open_dead_letters(channel)
        lot.record_death(StartedRun("tag/0", task.task_id), DEATH)
        assert client.ttl("recyclery:deaths:some-id") > 0
        lot.park(task, channel.unacked_key, channel.unacked_index_key)
        assert client.ttl("recyclery:deaths:some-id") == -1


def test_what_the_governor_saw_completes_the_death_of_that_child_alone(lot: DeadLetterStore) -> None:
    lot.record_death(StartedRun("tag/0", "id"), DEATH)
    lot.record_death(StartedRun("tag/1", "id"), replace(DEATH, at=2.0, pid=8))
    lot.complete_death(DeathReport(pid=8, task_id="id", tree_bytes=1 << 30, how="preempted"))
    assert [(death.pid, death.tree_bytes, death.how) for death in lot.list_deaths("id")] == [
        (7, None, "signal 9"),
        (8, 1 << 30, "preempted"),
    ]
    lot.complete_death(DeathReport(pid=7, task_id="other", tree_bytes=1))
    assert lot.list_deaths("other") == []


def test_a_broker_other_than_redis_has_no_parked_list(fresh_redis: str) -> None:
    assert why_not_parked(Celery(broker=fresh_redis), "redis") == ""
    assert "broker is memory" in why_not_parked(Celery(broker="memory://"), "memory")


def test_a_mark_that_cannot_be_read_hides_no_other(fresh_redis: str) -> None:
    run = StartedRun("tag/0", "some-id", 7)
    with redis.Redis.from_url(fresh_redis) as client:
        client.hset(in_flight_key("gone"), mapping={"odd": b'{"name":"odd/0","task_id":5}', "no": b"\xff"})
        client.hset(in_flight_key("gone"), "tag", msgspec.json.encode(run))
        assert read_in_flight(DeadLetterStore(client), "gone") == {"tag": run}
