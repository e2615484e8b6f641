"""What a dead worker held: given back at once when told, by the lease's end when not, and never twice."""

import base64
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker import link
from recyclery_worker.delivery.lease import reclaim
from recyclery_worker.delivery.registry import LEASE_SECONDS, Registry
from support.bare_worker import bare_worker
from support.redis_server import count_held, redis_server
from support.waiting import is_alive, wait_for


@pytest.fixture
def client(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as opened:
        yield opened


def our_keys(client: redis.Redis) -> list[bytes]:
    found: Any = client.keys("recyclery:*")
    # Marks of what was given back and of deaths are forgotten with time.
    return [key for key in found if not key.endswith(b":reclaimed") and b":deaths:" not in key]


def begun(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def kill_main(worker: Any) -> str:
    """Kill a worker's main process, wait until its children are gone too, and return its generation."""
    generation: str = worker.stat().generation
    children = worker.pids()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    wait_for(lambda: not any(map(is_alive, children)), "the children's end")
    return generation


def test_a_task_whose_process_is_killed_runs_again(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as worker:
        sent = sender.send_task("sample_app.note", (str(path), "a", 2), queue="low")
        wait_for(lambda: begun(path) == ["a"], "it runs")
        os.kill(worker.pids()[0], signal.SIGKILL)
        wait_for(lambda: begun(path) == ["a", "a"], "it runs again")
        sent.get(timeout=20)
        wait_for(lambda: count_held(client) == 0, "it is done with")


def test_what_a_killed_worker_held_runs_again_as_soon_as_another_is_told(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as first:
        sent = sender.send_task("sample_app.note", (str(path), "a", 3), queue="low")
        wait_for(lambda: begun(path) == ["a"], "it runs")
        generation = kill_main(first)
        with bare_worker(fresh_redis) as second:
            assert second.ask(link.ReclaimRequest(generation=generation)) == link.RequestDone()
            wait_for(lambda: begun(path) == ["a", "a"], "it runs again", LEASE_SECONDS / 2)
            sent.get(timeout=10)
            wait_for(lambda: count_held(client) == 0, "it is done with")


def test_what_a_killed_worker_held_goes_to_the_head_of_the_queue_in_its_order(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis, options=("--prefetch-multiplier", "3")) as worker:
        for mark in ("a", "b", "c"):
            sender.send_task("sample_app.note", (str(path), mark, 600), queue="low")
        wait_for(lambda: begun(path) == ["a"] and count_held(client) == 3, "it has them all in hand")
        sender.send_task("sample_app.note", (str(path), "d", 600), queue="low")
        generation = kill_main(worker)
    book = Registry(client)
    held = book.find(generation)
    assert held is not None
    assert reclaim(sender, held) == 3
    # Tasks are taken from the right.
    waiting: Any = client.lrange("low", 0, -1)
    marks = [json.loads(base64.b64decode(json.loads(each)["body"]))[0][1] for each in reversed(waiting)]
    assert marks == ["a", "b", "c", "d"]
    assert our_keys(client) == []


def test_a_worker_holds_no_more_messages_than_it_runs(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    gate = tmp_path / "gate"
    with bare_worker(fresh_redis, concurrency=2):
        for _ in range(6):
            sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(lambda: count_held(client) == 2, "two run")
        assert client.llen("low") == 4
        gate.touch()


def test_a_dead_worker_without_a_governor_is_detected_by_its_lease(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as first, bare_worker(fresh_redis) as second:
        sender.send_task("sample_app.note", (str(path), "a", 3), queue="low")
        wait_for(lambda: begun(path) == ["a"], "it runs")
        holder, other = (first, second) if busy(first) else (second, first)
        kill_main(holder)
        wait_for(lambda: begun(path) == ["a", "a"], "it runs again", 3 * LEASE_SECONDS)
        assert busy(other)


def busy(worker: Any) -> bool:
    return any(child.task_id for child in worker.stat().children)


@pytest.mark.slow
def test_a_living_workers_tasks_are_never_given_away(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis), bare_worker(fresh_redis):
        sent = sender.send_task("sample_app.note", (str(path), "a", 1.5 * LEASE_SECONDS), queue="low")
        sent.get(timeout=3 * LEASE_SECONDS)
        assert begun(path) == ["a"]


def test_a_clean_stop_leaves_no_key_behind(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    with bare_worker(fresh_redis) as worker:
        sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=10)
        assert our_keys(client)
        worker.process.terminate()
        worker.process.wait(30)
        assert client.keys("recyclery:*") == []


@pytest.mark.slow
def test_a_worker_frozen_past_its_lease_starts_nothing_that_was_given_away_and_ends(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with bare_worker(fresh_redis, options=("--prefetch-multiplier", "4")) as first:
        sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        for mark in ("a", "b"):
            sender.send_task("sample_app.note", (str(path), mark, 0), queue="low")
        with redis.Redis.from_url(fresh_redis) as client:
            wait_for(lambda: count_held(client) == 3, "the worker has all three in hand")
            os.kill(first.process.pid, signal.SIGSTOP)
            try:
                with bare_worker(fresh_redis, concurrency=2):
                    wait_for(lambda: sorted(begun(path)) == ["a", "b"], "others run them", 3 * LEASE_SECONDS)
                    # What runs runs on in both.
                    gate.touch()
            finally:
                os.kill(first.process.pid, signal.SIGCONT)
            assert first.process.wait(30) == 0
            assert sorted(begun(path)) == ["a", "b"]
            assert count_held(client) == 0


@pytest.mark.slow
def test_a_worker_stops_in_time_though_redis_is_away() -> None:
    with redis_server() as url, bare_worker(url) as worker:
        with redis.Redis.from_url(url) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        worker.process.terminate()
        assert worker.process.wait(25) == 0


def test_a_task_that_must_not_run_twice_does_not(
    sender: Celery, fresh_redis: str, tmp_path: Path, client: redis.Redis
) -> None:
    gate = tmp_path / "gate"
    with bare_worker(fresh_redis) as first:
        sender.send_task("sample_app.nap_until_once", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        assert count_held(client) == 0
        kill_main(first)


@pytest.mark.slow
def test_the_users_own_settings_stand(fresh_redis: str, tmp_path: Path) -> None:
    """Shown by a worker whose app says the opposite of each default."""
    with bare_worker(fresh_redis, app="own_settings_app") as worker:
        assert worker.stat().generation == ""
