"""On a real RabbitMQ: deaths are counted in the result backend's Redis, and the depth of queues is known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu import Connection

from recyclery.doctor.broker import read_rabbitmq
from recyclery.doctor.supervision import count_in_rabbitmq
from recyclery_worker.broker.connection import count_ready
from recyclery_worker.delivery.rabbitmq import PARKING_QUEUE
from recyclery_worker.parking.records import Parked
from support.bare_worker import bare_worker
from support.rabbitmq_server import rabbitmq_server
from support.supervised import supervised
from support.waiting import wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rabbitmq_url() -> Iterator[str]:
    """A real RabbitMQ for the tests of this file."""
    with rabbitmq_server() as url:
        yield url


@pytest.fixture
def broker(rabbitmq_url: str) -> Iterator[str]:
    """The same, without queues."""
    yield rabbitmq_url
    with Connection(rabbitmq_url) as connection:
        channel: Any = connection.default_channel
        for queue in ("low", "high", "default", PARKING_QUEUE):
            channel.queue_delete(queue)


def read_parked(url: str) -> Any:
    """Take the first message from the parking queue, if there is one."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        return channel.basic_get(PARKING_QUEUE, no_ack=True)


def test_a_task_that_keeps_killing_its_process_is_parked_and_others_go_on(
    broker: str, fresh_redis: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    app = Celery(broker=broker, backend=fresh_redis, set_as_current=False)
    with bare_worker(fresh_redis, environment={"CELERY_BROKER_URL": broker}):
        poison = app.send_task("sample_app.die", (str(runs), 99), queue="low", compression="zlib", expires=3600)
        other = app.send_task("sample_app.add", (1, 2), queue="low")
        assert other.get(timeout=60) == 3
        with pytest.raises(Parked, match="died 3 times"):
            poison.get(timeout=60)
    assert runs.read_text() == "xxx"
    message = read_parked(broker)
    assert message.headers["id"] == poison.id
    assert message.headers["x-recyclery-routing-key"] == "low"
    with redis.Redis.from_url(fresh_redis) as client:
        assert not client.keys("recyclery:*")
    with bare_worker(fresh_redis, environment={"CELERY_BROKER_URL": broker}), Connection(broker) as connection:
        # As RabbitMQ's own tools move it.
        channel: Any = connection.default_channel
        channel.basic_publish(message, exchange="", routing_key="low")
        wait_for(lambda: runs.read_text() == "xxxxxx", "it has as many runs again")
        wait_for(lambda: read_parked(broker), "it is parked again")


def test_a_task_that_dies_once_runs_again(broker: str, fresh_redis: str, tmp_path: Path) -> None:
    app = Celery(broker=broker, backend=fresh_redis, set_as_current=False)
    with bare_worker(fresh_redis, environment={"CELERY_BROKER_URL": broker}):
        assert app.send_task("sample_app.die", (str(tmp_path / "runs"), 1), queue="low").get(timeout=60) == 2
        with redis.Redis.from_url(fresh_redis) as client:
            wait_for(lambda: not client.keys("recyclery:*"), "its death is forgotten")


def test_without_redis_a_task_whose_process_dies_fails_as_with_celery_alone(
    broker: str, fresh_redis: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    variables = {"CELERY_BROKER_URL": broker, "CELERY_RESULT_BACKEND": f"file://{tmp_path}"}
    app = Celery(broker=broker, backend=f"file://{tmp_path}", set_as_current=False)
    with bare_worker(fresh_redis, environment=variables):
        poison = app.send_task("sample_app.die", (str(runs), 99), queue="low")
        assert app.send_task("sample_app.add", (1, 2), queue="low").get(timeout=60) == 3
        wait_for(lambda: poison.state == "FAILURE", "it fails")
    assert runs.read_text() == "x"
    assert "a task whose process dies fails, and does not run again" in capfd.readouterr().err


def test_the_depth_of_its_queues_is_in_the_status_and_a_queue_may_be_missing(
    broker: str, fresh_redis: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    app = Celery(broker=broker, set_as_current=False)

    def depth() -> int | None:
        known: int | None = running.status()["pools"]["slow"]["queue_depth"]
        return known

    with supervised(
        "--pool", "slow", redis_url=fresh_redis, environment={"CELERY_BROKER_URL": broker}
    ) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: depth() == 0, "nothing waits")
        for _ in range(4):
            app.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(lambda: depth() == 3, "one runs, the others wait")
        gate.touch()
        wait_for(lambda: depth() == 0, "nothing waits")
    with Connection(broker) as connection:
        assert count_ready(connection, "no-such-queue") == count_ready(connection, "low") == 0


def test_doctor_asks_rabbitmq_and_counts_what_waits(broker: str) -> None:
    app = Celery(broker=f"amqp://guest:hunter2@127.0.0.1:1//;{broker}", set_as_current=False)
    app.send_task("nobody.takes", queue="low")
    facts = read_rabbitmq(app)
    assert facts.problem is None
    assert facts.version
    assert count_in_rabbitmq(app, ("low", "no-such-queue")) == {"low": 1, "no-such-queue": 0}
    refused = read_rabbitmq(Celery(broker=broker.replace("guest@", "hunter2@"), set_as_current=False))
    assert "ACCESS_REFUSED" in (refused.problem or "")
    assert "hunter2" not in str(refused)


def test_a_task_that_keeps_killing_its_worker_is_parked_and_one_beside_it_is_not(
    broker: str, fresh_redis: str, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    app = Celery(broker=broker, backend=fresh_redis, set_as_current=False)
    config = tmp_path / "recyclery.toml"
    config.write_text("[pools.slow]\nconcurrency = 2\nmax_task_deaths = 1\n")
    variables = {"CELERY_BROKER_URL": broker, "RECYCLERY_CONFIG": str(config)}
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=variables) as running:
        running.wait_until_ready("slow")
        beside = app.send_task("sample_app.run_until", (str(tmp_path / "beside"), str(gate)), queue="low")
        wait_for((tmp_path / "beside").exists, "it runs")
        poison = app.send_task("sample_app.end_worker", (str(runs), 99), queue="low")
        wait_for(lambda: (tmp_path / "beside").read_text() == "xx", "it runs again")
        gate.touch()
        with pytest.raises(Parked, match="died once"):
            poison.get(timeout=60)
        beside.get(timeout=60)
    assert len(runs.read_text()) <= 3
    assert read_parked(broker).headers["id"] == poison.id
    assert read_parked(broker) is None
