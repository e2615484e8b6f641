"""A lease is renewed by a thread that nothing else can keep busy, and nobody's death depends on a clock."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker.broker.connection import connected
from recyclery_worker.delivery import lease as module
from recyclery_worker.delivery.give_back import Mover
from recyclery_worker.delivery.lease import Lease
from recyclery_worker.delivery.registry import LEASE_SECONDS, LEASES, Generation, new_generation, open_registry
from recyclery_worker.parking.admission import InFlight
from recyclery_worker.parking.records import DeadLetterStore, StartedRun, name_run
from support.bare_worker import bare_worker
from support.redis_server import count_held
from support.waiting import wait_for

HOUR = 3600.0


@pytest.fixture
def client(fresh_redis: str) -> Iterator[Any]:
    with redis.Redis.from_url(fresh_redis) as opened:
        yield opened


@pytest.fixture
def lease(sender: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lease]:
    """A lease of this process, which receives nothing."""
    monkeypatch.setattr(module, "install_qos", lambda *_: None)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    ours = Lease(sender, new_generation("low@here"))
    ours.begin()
    yield ours
    ours.end()


def hold(app: Celery, count: int, queue: str = "low") -> Generation:
    """Take messages as a worker does that then dies."""
    generation = new_generation("slow@there")
    with connected(app, **generation.keys) as channel:
        open_registry(channel).register(generation)
        for number in range(count):
            app.send_task("any", (number,), queue=queue)
            assert channel.basic_get(queue)
        channel.qos._delivered.clear()
    return generation


def wait_for_renewal(client: Any, lease: Lease) -> None:
    before = client.zscore(LEASES, lease.generation.id)
    wait_for(lambda: client.zscore(LEASES, lease.generation.id) != before, "it is renewed")


def test_a_lease_is_renewed_while_messages_of_the_dead_are_given_back(
    lease: Lease, sender: Celery, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait(*_: Any) -> int:
        begun.set()
        gate.wait(60)
        return 0

    monkeypatch.setattr(module, "reclaim", wait)
    lease.reclaim_soon(hold(sender, 1).id)
    assert begun.wait(30)
    for _ in range(3):
        wait_for_renewal(client, lease)
    # What runs here is recorded meanwhile.
    updated = threading.Event()
    monkeypatch.setattr(lease.in_flight, "update", lambda _: updated.set())
    assert updated.wait(20)
    gate.set()


def test_a_lease_is_renewed_while_its_keeper_waits(
    lease: Lease, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait(*_: Any) -> None:
        begun.set()
        gate.wait(30)

    monkeypatch.setattr(lease.in_flight, "update", wait)
    assert begun.wait(30)
    for _ in range(3):
        wait_for_renewal(client, lease)
    gate.set()


def test_what_a_dead_worker_held_is_given_back_on_request(lease: Lease, sender: Celery, client: Any) -> None:
    dead = hold(sender, 3)
    lease.reclaim_soon(dead.id)
    wait_for(lambda: lease.reclaimed == 3, "it is given back")
    assert client.llen("low") == 3


def test_what_a_dead_worker_held_is_given_back_though_the_parked_list_is_another_programs(
    lease: Lease, sender: Celery, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set("recyclery:parked", "theirs")
    dead = hold(sender, 1)
    client.zrem(LEASES, dead.id)
    wait_for(lambda: client.llen("low") == 1, "it is given back", LEASE_SECONDS + 10)
    errors = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert len(errors) == 1
    assert "recyclery:parked is not Recyclery's" in errors[0]


def test_what_a_dead_worker_ran_is_taken_before_what_waited_there(sender: Celery, client: Any) -> None:
    dead = hold(sender, 4)
    oldest, *_, ran, _ = (tag.decode() for tag in client.zrange(dead.keys["unacked_index_key"], 0, -1))
    InFlight(dead.id).mark(DeadLetterStore(client), ran, StartedRun(name_run(ran), "its id"))
    assert module.reclaim(sender, dead) == 4
    # Tasks are taken from the right.
    *_, second, first = client.lrange("low", 0, -1)
    assert ran.encode() in first
    assert oldest.encode() in second


def test_what_a_dead_worker_ran_can_be_taken_before_the_others_are_given_back(
    sender: Celery, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = hold(sender, 4)
    _, ran, *_ = (tag.decode() for tag in client.zrange(dead.keys["unacked_index_key"], 0, -1))
    InFlight(dead.id).mark(DeadLetterStore(client), ran, StartedRun(name_run(ran), "its id"))
    move_all, taken = Mover.move_all, []

    def move_all_and_take_one(mover: Mover, held: Any) -> int:
        moved = move_all(mover, held)
        taken.append(client.rpop("low"))
        return moved

    monkeypatch.setattr(Mover, "move_all", move_all_and_take_one)
    assert module.reclaim(sender, dead) == 4
    assert ran.encode() in taken[0]
    assert ran.encode() not in b"".join(client.lrange("low", 0, -1))


def test_a_worker_does_not_give_back_what_it_holds_itself(
    lease: Lease, sender: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_back: list[Generation] = []

    def note(_: Celery, generation: Generation) -> int:
        given_back.append(generation)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(module, "reclaim", note)
        lease.reclaim_soon(lease.generation.id)
        dead = hold(sender, 1)
        lease.reclaim_soon(dead.id)
        wait_for(lambda: dead in given_back, "the other's is given back")
    assert given_back == [dead]


@pytest.mark.slow
def test_thousands_of_countdown_tasks_survive_a_lost_connection_while_their_worker_answers(
    sender: Celery, fresh_redis: str, client: Any, tmp_path: Path
) -> None:
    gate, count = tmp_path / "gate", 2000
    with bare_worker(fresh_redis, concurrency=2) as worker:
        running = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        with sender.connection_for_write() as connection:
            for number in range(count):
                sender.send_task(
                    "sample_app.add", (number, 1), queue="low", countdown=HOUR, connection=connection
                )
        wait_for(lambda: count_held(client) == count + 1, "they are held")
        received = worker.stat().received
        client.client_kill_filter(_type="normal", skipme=True)
        longest = 0.0
        while worker.stat().received < received + count:
            asked = time.monotonic()
            worker.stat()
            longest = max(longest, time.monotonic() - asked)
            time.sleep(0.02)
        wait_for(lambda: count_held(client) == count + 1, "they are held again")
        assert client.llen("low") == 0
        assert longest < LEASE_SECONDS / 2
        gate.touch()
        running.get(timeout=20)
        wait_for(lambda: count_held(client) == count, "it is done with")


@pytest.mark.slow
def test_no_step_of_redis_clock_makes_the_living_dead_or_the_dead_alive(
    sender: Celery, fresh_redis: str, client: Any
) -> None:
    """The living one renews its lease by a clock that is an hour late, the dead one's was an hour early."""
    living, dead = hold(sender, 1), hold(sender, 2, "other")
    with bare_worker(fresh_redis):
        died = time.monotonic()
        client.zadd(LEASES, {dead.id: time.time() + HOUR})
        while client.llen("other") == 0:
            client.zadd(LEASES, {living.id: time.time() - HOUR})
            assert time.monotonic() - died < LEASE_SECONDS + 5
            time.sleep(0.5)
        until = time.monotonic() + LEASE_SECONDS / 2
        while time.monotonic() < until:
            client.zadd(LEASES, {living.id: time.time() - HOUR})
            time.sleep(0.5)
        assert (client.llen("low"), client.llen("other")) == (0, 2)


def test_what_no_thread_could_be_started_for_is_given_back_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ours, done = Lease(Celery(), new_generation("low@here")), threading.Event()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            ours._start_giving_back("dead", done.set)
    ours._start_giving_back("dead", done.set)
    assert done.wait(5)
