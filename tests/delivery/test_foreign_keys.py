"""On a real Redis: what somebody else has written to our keys stops no worker, and is named."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker.broker.connection import SHARED_KEYS, name_wrong_keys
from support.bare_worker import bare_worker
from support.supervised import SUPPORT

pytestmark = pytest.mark.slow

WRITERS: dict[str, Callable[[Any, str], object]] = {
    "string": lambda client, key: client.set(key, "junk"),
    "list": lambda client, key: client.rpush(key, "junk"),
    "hash": lambda client, key: client.hset(key, mapping={"junk": "junk", b"\xff": "junk"}),
    "zset": lambda client, key: client.zadd(key, {"junk": 1, b"\xff": 2}),
}
KEYS = [*SHARED_KEYS, "recyclery:probe", "recyclery:deaths:some-id"]


def run(url: str, *command: str) -> str:
    """Run one of our commands; return all that it prints."""
    variables = {"PYTHONPATH": str(SUPPORT), "REDIS_URL": url, "CELERY_APP": "sample_app"}
    return subprocess.run(
        [sys.executable, "-m", "recyclery", *command],
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


@pytest.mark.parametrize("kind", WRITERS)
def test_a_worker_starts_and_works_whatever_is_in_our_keys(
    fresh_redis: str, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    app = Celery(broker=fresh_redis, backend=fresh_redis, set_as_current=False)
    wrong = [key for key, ours in SHARED_KEYS.items() if ours != kind]
    with redis.Redis.from_url(fresh_redis) as client:
        for key in KEYS:
            WRITERS[kind](client, key)
        sent = app.send_task("sample_app.add", (1, 2), queue="low")
        with bare_worker(fresh_redis):
            assert sent.get(timeout=30) == 3
        log = capfd.readouterr().err
        assert all(f"{key} is a {kind}" in log for key in wrong)
        assert log.count("this worker keeps no lease") == 1


def test_a_worker_goes_on_when_somebody_writes_to_our_keys(fresh_redis: str) -> None:
    app = Celery(broker=fresh_redis, backend=fresh_redis, set_as_current=False)
    with redis.Redis.from_url(fresh_redis) as client, bare_worker(fresh_redis):
        for key in KEYS:
            for write in WRITERS.values():
                client.delete(key)
                write(client, key)
                assert app.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
            client.delete(key)


def test_the_commands_name_what_is_not_ours(fresh_redis: str) -> None:
    with redis.Redis.from_url(fresh_redis) as client:
        WRITERS["hash"](client, "recyclery:generations")
        assert "gave back 0 of an unknown worker" in run(fresh_redis, "reclaim")
        WRITERS["string"](client, "recyclery:leases")
        assert "recyclery:leases is a string, not Recyclery's: DEL it" in run(fresh_redis, "reclaim")
        WRITERS["hash"](client, "recyclery:parked")
        assert "recyclery:parked is not Recyclery's: HDEL it" in run(fresh_redis, "parked", "list")
        WRITERS["string"](client, "recyclery:parked")
        assert "recyclery:parked is not Recyclery's: DEL it" in run(fresh_redis, "parked", "list")


def test_no_key_is_named_by_a_redis_that_has_gone_since() -> None:
    gone = Celery(broker="redis://127.0.0.1:1/0", set_as_current=False)
    assert name_wrong_keys(gone, redis.ResponseError("WRONGTYPE Operation against a key")) == ""
