"""Queue depths from Redis, by every URL that Celery takes."""

import pytest
import redis

from recyclery.observe.queue_depths import Broker, open_client
from support.redis_server import redis_server
from support.waiting import wait_for


def test_what_waits_in_all_queues_and_priorities_is_counted(fresh_redis: str) -> None:
    with redis.Redis.from_url(fresh_redis) as client:
        client.rpush("high", "a", "b")
        client.rpush("high\x06\x163", "c")
        client.rpush("default", "d")
    assert Broker(fresh_redis).depth(["high", "default", "none"]) == 4


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://:secret@host:6380/1?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none", "db": 1}),
        ("redis+socket:///run/redis.sock?virtual_host=2", {"path": "/run/redis.sock", "db": 2}),
        ("redis://host/3", {"host": "host", "db": 3}),
    ],
)
def test_a_url_as_celery_takes_it_is_understood(url: str, expected: dict[str, object]) -> None:
    client = open_client(url)
    assert client is not None
    options = client.connection_pool.connection_kwargs
    assert {name: options[name] for name in expected} == expected


def test_a_url_that_cannot_be_understood_is_said_without_its_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert open_client("redis://:secret@host:port/0") is None
    assert "cannot be read" in caplog.text
    assert "secret" not in caplog.text


def test_of_another_broker_nothing_is_known() -> None:
    queues = Broker("amqp://guest@localhost//")
    assert (queues.depth(["low"]), queues.answers()) == (None, True)


def test_of_a_list_of_brokers_the_first_that_answers_is_asked_and_no_connection_stays_open() -> None:
    with redis_server() as url, redis.Redis.from_url(url) as client:
        client.rpush("high", "a")
        queues = Broker(f"redis://127.0.0.1:1/0;{url}")
        assert (queues.depth(["high"]), queues.answers()) == (1, True)
        wait_for(lambda: len(client.client_list()) == 1, "none but our own is open")


def test_a_redis_that_is_away_is_not_known_and_does_not_answer() -> None:
    queues = Broker("redis://127.0.0.1:1/0")
    assert (queues.depth(["low"]), queues.answers()) == (None, False)
