"""How many connections to Redis workers take, and what they say where Redis takes no more."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
import redis
from celery import Celery

from recyclery.doctor.broker import WORKER_CONNECTIONS
from recyclery_worker.broker import client_limit
from recyclery_worker.broker.client_limit import ClientLimit
from recyclery_worker.broker.wait import try_broker
from support.bare_worker import bare_worker
from support.redis_server import redis_server
from support.sending import sending_to
from support.supervised import supervised
from support.waiting import wait_for

# Of stock Celery 5.7 with the same pools and options, when each child has stored a result.
STOCK_CONNECTIONS = 24
CHILDREN = 4


def test_two_pools_take_no_more_connections_than_stock_celery() -> None:
    with redis_server() as url, supervised(redis_url=url) as running:
        running.wait_until_ready("fast", "slow")
        # Without a result backend it keeps no other connection.
        sender = Celery(broker=url, set_as_current=False)
        with sender.connection_for_write() as connection:
            for queue in ("high", "high", "high", "low"):
                sender.send_task("sample_app.nap", (1,), queue=queue, connection=connection)
        with redis.Redis.from_url(url) as client:
            wait_for(lambda: len(client.keys("celery-task-meta-*")) == CHILDREN, "each child stores a result")
            connections = len(client.client_list()) - 1
    assert CHILDREN < connections <= 2 * WORKER_CONNECTIONS + CHILDREN <= STOCK_CONNECTIONS


@pytest.mark.parametrize("most", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_worker_with_max_connections_of_one_works(most: int) -> None:
    with (
        redis_server() as url,
        bare_worker(
            url,
            app="options_app",
            environment={"BROKER_URL": url, "TRANSPORT_OPTIONS": json.dumps({"max_connections": most})},
        ),
        redis.Redis.from_url(url) as client,
        sending_to(url) as sender,
    ):
        sender.send_task("sample_app.count_run", (1,), queue="low")
        sender.send_task("sample_app.count_run", (2,), queue="low")
        wait_for(lambda: int(client.get("sample:runs") or 0) == 2, "both tasks have run")
        wait_for(lambda: not client.keys("recyclery:*:unacked"), "both are acknowledged")


@contextmanager
def crowding(url: str) -> Iterator[None]:
    """Open connections until one is refused; close them with the block."""
    with ExitStack() as stack:
        while is_taken(stack.enter_context(redis.Redis.from_url(url))):
            pass
        yield


def is_taken(client: redis.Redis) -> bool:
    """Tell whether Redis takes a client's connection."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_a_redis_that_refuses_connections_is_logged_once_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_limit, "LOOK_SECONDS", 0.0)
    limit = ClientLimit()

    def told() -> int:
        limit.look(client)
        limit.look(client)
        return caplog.text.count("Redis is at its limit of connections")

    with redis_server("--maxclients", "8") as url, redis.Redis.from_url(url) as client:
        client.ping()
        assert told() == 0
        with crowding(url):
            assert told() == 1
        assert told() == 1
        with crowding(url):
            pass
        # None is refused any more, but one was.
        assert told() == 2
        with crowding(url), pytest.raises(redis.ConnectionError) as refused:
            redis.Redis.from_url(url).ping()
        limit.look_at(refused.value)
        assert told() == 3


class Proxy:
    """What speaks Redis's protocol, and tells little of itself."""

    def info(self, section: str) -> dict[str, int]:
        return {"maxclients": 0} if section == "clients" else {}


def test_of_what_tells_nothing_of_its_connections_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    ClientLimit().look(Proxy())
    assert caplog.text == ""


@pytest.mark.slow
def test_a_worker_that_redis_refuses_says_why() -> None:
    with redis_server("--maxclients", "6") as url, supervised("--pool", "slow", redis_url=url) as running:
        running.wait_for_line("Redis is at its limit of connections (this worker's own was refused)")


def test_a_user_who_may_not_ask_for_the_limit_is_told_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with redis_server() as url, redis.Redis.from_url(url) as admin:
        admin.acl_setuser("some", enabled=True, passwords=["+secret"], commands=["-info"], categories=["+@all"])
        with redis.Redis.from_url(url, username="some", password="secret") as client:
            ClientLimit().look(client)
    assert caplog.text == ""


def test_of_a_broker_list_each_is_asked_until_one_answers() -> None:
    with redis_server() as url:
        dead = [f"redis://127.0.0.1:{port}/0" for port in (1, 2, 3)]
        assert try_broker(Celery(broker=";".join([*dead, url]), set_as_current=False)) is None
