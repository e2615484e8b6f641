"""What delivery relies on in kombu and Celery, each by itself: a release that changes one fails here."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.worker import state
from celery.worker.consumer import Consumer
from kombu import Connection, Queue
from kombu.transport import redis as transport
from kombu.transport import virtual

from recyclery_worker.compat import is_set
from recyclery_worker.delivery.registry import KEY_OPTIONS, new_generation

OWN = {option: f"own:{option}" for option in KEY_OPTIONS}


@pytest.fixture
def client(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as connected:
        yield connected


@pytest.fixture
def connection(fresh_redis: str) -> Iterator[Any]:
    with opened(fresh_redis) as connected:
        yield connected


def opened(url: str, **options: Any) -> Any:
    """Return a connection with further transport options."""
    return Connection(url, transport_options={**OWN, **options})


def send(connection: Any, body: str, **options: Any) -> None:
    """Send one message to the queue `low`."""
    with connection.Producer() as producer:
        producer.publish(body, routing_key="low", declare=[Queue("low", routing_key="low")], **options)


def get(connection: Any) -> Any:
    """Receive one message."""
    message = Queue("low", routing_key="low", channel=connection.default_channel).get()
    assert message is not None
    return message


def bodies(client: redis.Redis, key: str = "low") -> list[str]:
    """Return the messages of a list, the next to be received first."""
    waiting: Any = client.lrange(key, 0, -1)
    return [json.loads(base64.b64decode(json.loads(each)["body"])) for each in reversed(waiting)]


def test_the_transport_options_name_the_keys(connection: Any, client: redis.Redis) -> None:
    assert set(KEY_OPTIONS) <= set(transport.Channel.from_transport_options)
    send(connection, "a", serializer="json")
    get(connection)
    assert client.hlen(OWN["unacked_key"]) == 1
    assert client.zcard(OWN["unacked_index_key"]) == 1
    assert client.exists("unacked", "unacked_index") == 0


def test_the_transport_options_are_read_when_a_connection_is_made(fresh_redis: str) -> None:
    """So that they may be changed in `worker_init`, and again before the consumer connects."""
    app: Any = Celery("late", broker=fresh_redis)
    before = app.connection_for_read()
    app.conf.broker_transport_options = dict(OWN)
    with before, app.connection_for_read() as after:
        assert before.default_channel.unacked_key == "unacked"
        assert after.default_channel.unacked_key == OWN["unacked_key"]


def test_a_message_in_hand_is_kept_as_its_payload_exchange_and_routing_key(
    connection: Any, client: redis.Redis
) -> None:
    send(connection, "a", serializer="json")
    tag = get(connection).delivery_tag
    kept: Any = client.hget(OWN["unacked_key"], tag)
    payload, exchange, routing_key = json.loads(kept)
    assert payload["properties"]["delivery_tag"] == tag
    assert (exchange, routing_key) == ("", "low")


def test_a_message_is_taken_from_the_right_and_sent_to_the_left(connection: Any, client: redis.Redis) -> None:
    for body in ("a", "b"):
        send(connection, body, serializer="json")
    assert get(connection).payload == "a"
    assert bodies(client) == ["b"]


def test_a_message_is_out_of_its_queue_before_it_is_in_hand(
    connection: Any, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Why there is delivery/receive.py."""
    found: list[int] = []
    append = transport.QoS.append

    def look(self: Any, message: Any, delivery_tag: str) -> None:
        found.extend((int(client.llen("low")), int(client.hlen(OWN["unacked_key"]))))
        append(self, message, delivery_tag)

    monkeypatch.setattr(transport.QoS, "append", look)
    send(connection, "a", serializer="json")
    get(connection)
    assert found == [0, 0]


def test_restoring_by_tag_puts_a_message_where_it_is_taken_next(connection: Any, client: redis.Redis) -> None:
    for body in ("a", "b"):
        send(connection, body, serializer="json")
    tag = get(connection).delivery_tag
    connection.default_channel.qos.restore_by_tag(tag, leftmost=False)
    assert bodies(client) == ["a", "b"]
    assert client.exists(*OWN.values()) == 0


def test_restoring_by_tag_twice_is_restoring_once(connection: Any, client: redis.Redis) -> None:
    send(connection, "a", serializer="json")
    tag = get(connection).delivery_tag
    for _ in range(2):
        connection.default_channel.qos.restore_by_tag(tag, leftmost=False)
    assert bodies(client) == ["a"]


def test_a_message_that_is_given_back_goes_to_the_end_of_its_queue(
    connection: Any, client: redis.Redis
) -> None:
    """What `reject_on_worker_lost` does: a task that kills its worker lets others go first."""
    for body in ("a", "b"):
        send(connection, body, serializer="json")
    get(connection).reject(requeue=True)
    assert bodies(client) == ["b", "a"]


def test_each_step_of_priority_is_a_list_of_its_own(connection: Any, client: redis.Redis) -> None:
    send(connection, "a", serializer="json", priority=5)
    assert transport.Channel.priority_steps == [0, 3, 6, 9]
    assert bodies(client, "low\x06\x163") == ["a"]
    message = get(connection)
    connection.default_channel.qos.restore_by_tag(message.delivery_tag, leftmost=False)
    assert bodies(client, "low\x06\x163") == ["a"]


def test_what_is_overdue_by_the_visibility_timeout_is_given_back(fresh_redis: str, client: redis.Redis) -> None:
    """So that it has to be longer than any task; and none but the keys named are looked at."""
    for keys, waiting in ((OWN, ["a"]), ({"unacked_key": "others", "unacked_index_key": "others_index"}, [])):
        client.flushall()
        with opened(fresh_redis) as first:
            send(first, "a", serializer="json")
            get(first)
            first.default_channel.qos._delivered.clear()
            with opened(fresh_redis, **keys, visibility_timeout=-1) as second:
                second.default_channel.qos.restore_visible(interval=1)
            assert bodies(client) == waiting


def test_a_channel_that_is_closed_gives_back_what_it_has(connection: Any, client: redis.Redis) -> None:
    """What `in_hand` takes away from it: what runs is among that."""
    send(connection, "a", serializer="json")
    get(connection)
    connection.default_channel.close()
    assert bodies(client) == ["a"]
    assert transport.Channel.QoS.restore_unacked_once is virtual.QoS.restore_unacked_once


def test_an_acknowledgement_goes_by_the_messages_channel_and_its_qos(
    connection: Any, client: redis.Redis
) -> None:
    """So a message is moved by setting its channel, and counted there by `virtual.QoS.append`."""
    send(connection, "a", serializer="json")
    message = get(connection)
    other = connection.channel()
    message.channel = other
    virtual.QoS.append(other.qos, message, message.delivery_tag)
    assert len(other.qos._delivered) == 1
    message.ack()
    assert client.exists(*OWN.values()) == 0


def test_a_global_prefix_is_before_all_keys_of_kombus_own(fresh_redis: str, client: redis.Redis) -> None:
    with opened(fresh_redis, global_keyprefix="mine:") as connection:
        send(connection, "a", serializer="json")
        get(connection)
        assert connection.default_channel.global_keyprefix == "mine:"
        keys: Any = client.keys("*own*")
        assert sorted(keys) == [b"mine:own:unacked_index_key", b"mine:own:unacked_key"]


def test_a_channels_pool_serves_a_client_of_our_own(connection: Any) -> None:
    assert redis.Redis(connection_pool=connection.default_channel.pool).ping()


@pytest.mark.parametrize("url", ["redis://", "rediss://", "sentinel://"])
def test_every_redis_is_told_by_its_driver(url: str) -> None:
    assert Connection(url).transport_cls in {"redis", "rediss", "sentinel"}
    assert Connection(url).get_transport_cls().driver_type == "redis"


def do_nothing() -> None:
    """A task."""


def test_a_task_keeps_what_the_settings_were_when_it_was_first_used() -> None:
    """So that a setting made after an app's import comes too late."""
    app: Any = Celery("settings", broker="memory://")

    some = app.task(do_nothing, name="some", shared=False)
    app.conf.task_acks_late = True
    assert some.name == "some"
    app.conf.task_acks_late = False
    app.finalize()
    assert some.acks_late is True


@pytest.mark.parametrize("name", ["task_acks_late", "CELERY_TASK_ACKS_LATE"])
def test_what_the_user_has_set_is_told_from_celerys_own(name: str) -> None:
    app: Any = Celery("settings", broker="memory://")
    app.config_from_object({name: False}, namespace=None if name.islower() else "CELERY")
    # Read first: an app's configuration is loaded then.
    assert app.conf.task_acks_late is False
    assert is_set(app.conf, "task_acks_late")
    assert not is_set(app.conf, "task_reject_on_worker_lost")


def test_celerys_worker_has_what_delivery_asks_it_for() -> None:
    assert state.should_stop is None
    assert list(state.active_requests) == []
    assert "celery.worker.consumer.tasks:Tasks" in Consumer.Blueprint.default_steps


def test_our_generations_name_every_key_that_kombu_keeps_messages_by() -> None:
    """A key more would be shared with other workers, and given back with theirs."""
    named = {option for option in transport.Channel.from_transport_options if option.startswith("unacked_")}
    keys = {option for option in named if option.endswith("_key")}
    assert new_generation("any@here").keys.keys() == keys
