"""A Redis that is there and of no use: it hangs, or takes no writes. Workers wait for it, and outlive it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import redis
from celery import Celery
from celery.exceptions import WorkerShutdown

from recyclery_worker import link
from recyclery_worker.broker.wait import BrokerWait, try_broker
from support.bare_worker import BareWorker, bare_worker
from support.ports import free_port
from support.redis_server import redis_server
from support.sending import sending_to
from support.waiting import wait_for


@pytest.fixture(scope="module")
def own_redis() -> Iterator[str]:
    """A Redis for these tests alone, which leave it as they found it."""
    with redis_server() as url:
        yield url


@contextmanager
def refusing_writes(url: str) -> Iterator[None]:
    """Make it a replica of nobody until the block ends."""
    with redis.Redis.from_url(url) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


@contextmanager
def hanging(url: str) -> Iterator[None]:
    """Stop the server until the block ends: it is connected to, and answers nothing."""
    with redis.Redis.from_url(url) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def said_of(url: str) -> str | None:
    """What is wrong with the broker at a URL."""
    return try_broker(Celery(broker=url, set_as_current=False))


def test_a_redis_that_takes_writes_answers(own_redis: str) -> None:
    assert said_of(own_redis) is None


def test_a_redis_that_takes_no_writes_does_not_count_as_answering(own_redis: str) -> None:
    with refusing_writes(own_redis):
        assert "read only" in str(said_of(own_redis))


def test_a_redis_that_is_full_does_not_count_as_answering(own_redis: str) -> None:
    with redis.Redis.from_url(own_redis) as client:
        client.config_set("maxmemory", 1)
        try:
            assert "maxmemory" in str(said_of(own_redis))
        finally:
            client.config_set("maxmemory", 0)


def test_a_redis_that_hangs_is_detected_in_a_bounded_time(own_redis: str) -> None:
    with hanging(own_redis):
        assert "Timeout" in str(said_of(own_redis))


def test_a_redis_that_grants_only_what_celery_needs_answers(own_redis: str) -> None:
    with redis.Redis.from_url(own_redis) as client:
        client.execute_command("ACL SETUSER limited on >word ~* +@all -setrange")
        assert said_of(own_redis.replace("://", "://limited:word@")) is None


def test_probing_whether_redis_takes_writes_leaves_no_key(own_redis: str) -> None:
    assert said_of(own_redis) is None
    with redis.Redis.from_url(own_redis) as client:
        assert client.keys("*probe*") == []


def is_silent(worker: BareWorker) -> bool:
    """Tell whether a worker's loop stands still, or it is gone."""
    try:
        worker.ask(link.StatRequest(), seconds=1)
    except OSError:
        return True
    return False


def test_a_worker_outlives_a_redis_that_takes_no_writes_for_a_while(own_redis: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with sending_to(own_redis) as sender, bare_worker(own_redis) as worker:
        sender.send_task("sample_app.nap_until", (str(gate),), queue="low", ignore_result=True)
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        before = worker.stat().pid
        with refusing_writes(own_redis):
            # Its acknowledgement is refused, and the worker waits.
            gate.touch()
            wait_for(lambda: is_silent(worker), "it waits for its broker")
        result = sender.send_task("sample_app.add", (1, 2), queue="low")
        assert result.get(timeout=30) == 3
        assert (worker.stat().pid, worker.process.poll()) == (before, None)


@pytest.mark.parametrize(
    "settings",
    [
        {"broker_connection_retry_on_startup": False},
        {"broker_connection_retry_on_startup": None, "broker_connection_retry": False},
    ],
    ids=["on_startup", "retry"],
)
def test_a_worker_whose_app_does_not_want_to_wait_for_its_broker_says_so_and_ends_at_its_start(
    settings: dict[str, bool | None], caplog: pytest.LogCaptureFixture
) -> None:
    app = Celery(broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    app.conf.update(settings)
    worker = SimpleNamespace(app=app)
    with pytest.raises(WorkerShutdown) as end:
        BrokerWait(worker).start(worker)
    assert end.value.code == 1
    (name,) = [name for name, retries in settings.items() if retries is False]
    assert f"has been disabled (app.conf.{name}=False). Shutting down... redis://" in caplog.text
    assert "Connection refused" in caplog.text
