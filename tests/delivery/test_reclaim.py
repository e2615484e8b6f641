"""What dead workers hold and nobody has given back is found, and `recyclery reclaim` gives it back."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery.celery_app.reclaim import CannotTell, find_orphaned_leases
from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery import reclaim as forgotten
from recyclery_worker.delivery.lease import reclaim
from recyclery_worker.delivery.registry import LEASES, Generation, Registry, new_generation, open_registry
from recyclery_worker.parking.begun import begun_folder
from support.supervised import SUPPORT


@pytest.fixture
def client(fresh_redis: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(fresh_redis) as opened:
        yield opened


def hold(app: Celery, count: int) -> Generation:
    """Take messages as a worker does that then dies."""
    generation = new_generation("slow@there")
    with connected(app, **generation.keys) as channel:
        open_registry(channel).register(generation)
        for number in range(count):
            app.send_task("any", (number,), queue="low")
            assert channel.basic_get("low")
        channel.qos._delivered.clear()
    return generation


def let_expire(client: redis.Redis, generation: Generation) -> None:
    client.zadd(LEASES, {generation.id: 1.0})


def test_a_worker_without_a_valid_lease_is_found_and_one_with_it_is_not(
    sender: Celery, client: redis.Redis
) -> None:
    dead, _living = hold(sender, 2), hold(sender, 1)
    let_expire(client, dead)
    (found,) = forgotten.find_orphaned(Registry(client))
    assert found == forgotten.OrphanedLease(dead.id, "slow@there", os.getpid(), 2)


def test_messages_of_a_worker_that_redis_forgot_are_found(sender: Celery, client: redis.Redis) -> None:
    dead = hold(sender, 1)
    client.delete("recyclery:generations", LEASES)
    (found,) = forgotten.find_orphaned(Registry(client))
    assert (found.generation, found.messages) == (dead.id, 1)


def test_a_prefix_that_is_a_pattern_stands_for_itself(client: redis.Redis) -> None:
    client.hset("m[a]ne*:recyclery:1:unacked", "tag", "message")
    client.hset("mane:recyclery:2:unacked", "tag", "message")
    assert [each.id for each in Registry(client, "m[a]ne*:").list_unregistered()] == ["1"]


def test_what_workers_under_tuning_hold_is_not_forgotten(client: redis.Redis) -> None:
    client.hset("recyclery:tune:0123456789ab:recyclery:1:unacked", "tag", "message")
    assert not Registry(client).list_unregistered()


def test_messages_of_a_forgotten_worker_are_given_back_and_leave_only_a_mark(
    sender: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "LEASE_SECONDS", 0.05)
    dead = hold(sender, 2)
    let_expire(client, dead)
    assert [each.messages for each in forgotten.give_back_orphaned(sender)] == [2]
    assert client.llen("low") == 2
    assert client.keys("recyclery:*") == [f"recyclery:{dead.id}:reclaimed".encode()]
    assert forgotten.give_back_orphaned(sender) == []


def test_a_worker_that_renews_its_lease_meanwhile_keeps_what_it_has(
    sender: Celery, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgotten, "LEASE_SECONDS", 0.5)
    living = hold(sender, 1)
    let_expire(client, living)
    # As after Redis was away: all leases look old, for a moment.
    threading.Timer(0.1, Registry(client).renew, (living,)).start()
    assert forgotten.give_back_orphaned(sender) == []
    assert client.llen("low") == 0


def recyclery(url: str, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run one of our commands on the sample app."""
    variables = {**os.environ, "CELERY_APP": "sample_app", "PYTHONPATH": str(SUPPORT), "REDIS_URL": url}
    command = [sys.executable, "-m", "recyclery", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_lists_orphaned_messages_and_changes_nothing(
    sender: Celery, fresh_redis: str, client: redis.Redis
) -> None:
    dead = hold(sender, 2)
    let_expire(client, dead)
    done = recyclery(fresh_redis, "reclaim", "--list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"held 2 of slow@there (pid {os.getpid()}), which is dead\n"
    assert client.llen("low") == 0


@pytest.mark.chaos
def test_the_command_gives_orphaned_messages_back(
    sender: Celery, fresh_redis: str, client: redis.Redis
) -> None:
    """It waits for as long as a lease."""
    let_expire(client, hold(sender, 2))
    done = recyclery(fresh_redis, "reclaim", "--json")
    answer: Any = json.loads(done.stdout)
    assert [each["messages"] for each in answer["forgotten"]] == [2]
    assert client.llen("low") == 2


def test_the_command_says_that_redis_does_not_answer() -> None:
    done = recyclery("redis://127.0.0.1:1/0", "reclaim", "--list")
    assert done.returncode == 1
    assert "what dead workers of 'sample_app' hold cannot be told: " in done.stderr


def test_the_command_says_that_the_app_cannot_be_imported() -> None:
    with pytest.raises(CannotTell, match="no_such_app"):
        find_orphaned_leases("no_such_app")


def test_of_a_worker_that_held_nothing_no_files_of_its_children_are_left(
    sender: Celery, fresh_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(tmp_path))
    gone = hold(sender, 0)
    begun_folder(gone.id).mkdir(parents=True)
    reclaim(sender, gone)
    assert not begun_folder(gone.id).exists()
