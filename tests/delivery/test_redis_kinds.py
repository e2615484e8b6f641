"""What a dead worker held comes back on Redis as people have it, and nothing is left there."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from recyclery_worker import link
from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery.lease import lease, reclaim, set_up
from recyclery_worker.delivery.registry import new_generation, open_registry
from support.bare_worker import BareWorker, bare_worker
from support.redis_kinds import (
    Kind,
    behind_sentinel,
    behind_tls,
    port_of,
    with_prefix,
    with_priorities,
    with_replica,
    with_user,
)
from support.redis_server import count_held, redis_server
from support.waiting import wait_for

CELERYS_KEYS = ("~low*", "~high*", "~unacked*", "~_kombu*", "~*pidbox*", "&*", "+@all")


def with_our_keys() -> AbstractContextManager[Kind]:
    """A user who may just use Celery's keys and ours."""
    return with_user(*CELERYS_KEYS, "~recyclery:*")


KINDS = [behind_tls, behind_sentinel, with_prefix, with_priorities, with_our_keys]


@pytest.mark.parametrize("run", KINDS)
def test_what_a_dead_worker_held_comes_back(run: Callable[[], AbstractContextManager[Kind]]) -> None:
    with run() as kind, redis.Redis.from_url(kind.plain_url) as client, kind.app() as app:
        dead = new_generation("dead@here")
        # Of two queues, and of a higher priority than the rest.
        for queue, priority in (("low", 0), ("low", 9), ("high", 5)):
            app.send_task("any", queue=queue, priority=priority)
        before = lists_in(client)
        with connected(app, **dead.keys) as channel:
            open_registry(channel).probe()
            open_registry(channel).register(dead)
            taken = [channel.basic_get(queue) for queue in ("low", "low", "high")]
            assert all(taken)
            assert lists_in(client) == {}
            # As one that is killed: it gives nothing back.
            channel.qos._delivered.clear()
        assert reclaim(app, dead) == 3
        assert lists_in(client) == before
        prefix = kind.options.get("global_keyprefix", "")
        assert client.keys("*recyclery:*") == [f"{prefix}recyclery:{dead.id}:reclaimed".encode()]


def lists_in(client: redis.Redis) -> dict[bytes, int]:
    """Return how many messages wait in each list."""
    names: Any = client.keys("*")
    return {name: int(client.llen(name)) for name in names if client.type(name) == b"list"}


@contextmanager
def worker_on(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Iterator[BareWorker]:
    """Run a worker whose broker is of that kind."""
    monkeypatch.setenv("BROKER_URL", kind.url)
    monkeypatch.setenv("TRANSPORT_OPTIONS", json.dumps(kind.options))
    with bare_worker(kind.plain_url, app="options_app") as worker:
        yield worker


@pytest.mark.chaos
@pytest.mark.parametrize("run", [behind_tls, behind_sentinel])
def test_a_workers_task_runs_again_elsewhere(
    run: Callable[[], AbstractContextManager[Kind]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    with run() as kind, kind.app() as app:
        with worker_on(kind, monkeypatch) as first:
            app.send_task("sample_app.note", (str(path), "a", 60), queue="low")
            wait_for(path.exists, "it runs")
            generation = first.stat().generation
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
        with worker_on(kind, monkeypatch) as second:
            assert second.ask(link.ReclaimRequest(generation=generation)) == link.RequestDone()
            wait_for(lambda: path.read_text().split() == ["a", "a"], "it runs again")
            os.kill(second.pids()[0], signal.SIGKILL)


def found_by(kind: Kind) -> str:
    """Return the URL of the Redis that a Sentinel names."""
    with redis.Redis(port=int(port_of(kind.url)), decode_responses=True) as sentinel:
        host, port = sentinel.sentinel_get_master_addr_by_name("main")
    return f"redis://{host}:{port}/0"


@pytest.mark.chaos
def test_a_worker_goes_on_with_the_replica_when_its_redis_dies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with with_replica() as (first, second), worker_on(first, monkeypatch) as worker, first.app() as app:
        app.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        Path(f"{gate}.begun").unlink()
        for mark in ("a", "b"):
            app.send_task("sample_app.note", (str(path), mark, 0), queue="low")
        with redis.Redis.from_url(first.plain_url) as dying, redis.Redis.from_url(second.plain_url) as client:
            wait_for(lambda: (client.llen("low"), count_held(client)) == (2, 1), "the replica has it all")
            os.kill(dying.info("server")["process_id"], signal.SIGKILL)
            wait_for(lambda: found_by(first) == second.plain_url, "the replica takes its place")
            with first.app() as another:
                another.send_task("sample_app.note", (str(path), "c", 0), queue="low")
            gate.touch()
            wait_for(lambda: path.exists() and path.read_text().split() == ["a", "b", "c"], "all run", 60)
            wait_for(lambda: (client.llen("low"), count_held(client)) == (0, 0), "all are done with")
        assert not Path(f"{gate}.begun").exists()
        assert worker.process.poll() is None


def test_a_worker_whose_user_may_not_use_our_keys_says_so_and_works_as_celery_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "runs"
    with with_user(*CELERYS_KEYS) as kind, worker_on(kind, monkeypatch) as worker, kind.app() as app:
        app.send_task("sample_app.note", (str(path), "a", 0), queue="low")
        wait_for(path.exists, "it runs")
        assert worker.stat().generation == ""
        with redis.Redis.from_url(kind.plain_url) as client:
            wait_for(lambda: client.hlen("unacked") == 0, "it is done with")
            assert client.keys("recyclery:*") == []
    assert "~recyclery:* +@all would do" in capfd.readouterr().err


# kombu looks each half second for what is older than two.
TIMEOUT = {"visibility_timeout": 2, "unacked_restore_interval": 0.5, "unacked_restore_throttle": 1}


@pytest.mark.slow
def test_a_visibility_timeout_of_the_apps_own_runs_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs, gate, later = tmp_path / "runs", tmp_path / "gate", tmp_path / "later"
    with redis_server() as url, redis.Redis.from_url(url) as client:
        kind = Kind(url, url, TIMEOUT)
        with worker_on(kind, monkeypatch), worker_on(kind, monkeypatch), kind.app() as app:
            app.send_task("sample_app.run_until", (str(runs), str(gate)), queue="low")
            app.send_task("sample_app.note", (str(later), "a", 0), queue="low", countdown=6)
            wait_for(later.exists, "its time has come")
            gate.touch()
            wait_for(lambda: count_held(client) == 0, "all are done with")
            assert client.llen("low") == 0
            assert runs.read_text() == "x"
            assert later.read_text().split() == ["a"]


@pytest.mark.slow
def test_without_a_lease_a_dead_workers_task_comes_back_after_the_visibility_timeout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    with with_user(*CELERYS_KEYS) as given:
        kind = replace(given, options=TIMEOUT)
        with kind.app() as app:
            with worker_on(kind, monkeypatch) as first:
                app.send_task("sample_app.run_until", (str(runs), str(gate)), queue="low")
                wait_for(runs.exists, "it runs")
                for pid in (first.process.pid, *first.pids()):
                    os.kill(pid, signal.SIGKILL)
                first.process.wait()
            with worker_on(kind, monkeypatch):
                wait_for(lambda: runs.read_text() == "xx", "it runs again")
                gate.touch()


@pytest.mark.parametrize("url", ["memory://", "filesystem://", "amqp://"])
def test_a_broker_that_gives_back_by_itself_is_left_alone(url: str) -> None:
    app = Kind(url, "").app()
    assert set_up(app, "worker@here") == ""
    assert lease() is None
    assert app.conf.broker_transport_options == {}
