"""Workers that stand still for longer than their lease: what had begun goes on, and nothing else does."""

import fcntl
import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker.delivery.registry import LEASE_SECONDS
from support.bare_worker import bare_worker
from support.redis_server import count_held, redis_server
from support.sending import sending_to
from support.supervised import Supervised, supervised
from support.waiting import wait_for


def begun(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Have processes stand still until the block ends."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.chaos
@pytest.mark.timeout(240)
def test_a_worker_frozen_with_all_its_children_finishes_what_had_begun_and_ends(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    with redis.Redis.from_url(fresh_redis) as client, bare_worker(fresh_redis, concurrency=2) as first:
        for mark in ("a", "b"):
            sender.send_task("sample_app.note", (str(path), mark, 3), queue="low")
        wait_for(lambda: sorted(begun(path)) == ["a", "b"], "both run")
        with frozen(first.process.pid, *first.pids()), bare_worker(fresh_redis, concurrency=2):
            again = ["a", "a", "b", "b"]
            wait_for(lambda: sorted(begun(path)) == again, "others run them", 4 * LEASE_SECONDS)
            wait_for(lambda: count_held(client) == 0, "they are done with")
        assert first.process.wait(40) == 0
        assert sorted(begun(path)) == again
        assert (count_held(client), client.llen("low")) == (0, 0)


def waiting_in_pipes(pid: int) -> int:
    """Count the bytes that wait in the pipes that a process reads from."""
    total = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        flags = int(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8)
        if entry.readlink().name.startswith("pipe:") and flags & os.O_ACCMODE == os.O_RDONLY:
            with entry.open("rb", buffering=0) as pipe:
                total += int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
    return total


@pytest.mark.chaos
def test_a_child_begins_nothing_that_was_handed_to_it_and_then_given_to_others(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    with redis.Redis.from_url(fresh_redis) as client, bare_worker(fresh_redis) as first:
        (child,) = first.pids()
        with frozen(first.process.pid):
            with frozen(child):
                os.kill(first.process.pid, signal.SIGCONT)
                sender.send_task("sample_app.note", (str(path), "a", 0), queue="low")
                wait_for(lambda: waiting_in_pipes(child) > 0, "it is in the child's hands")
                os.kill(first.process.pid, signal.SIGSTOP)
                with bare_worker(fresh_redis):
                    wait_for(lambda: begun(path) == ["a"], "another runs it", 4 * LEASE_SECONDS)
                    wait_for(lambda: count_held(client) == 0, "it is done with")
            wait_for(lambda: waiting_in_pipes(child) == 0, "the child has read it")
        assert first.process.wait(40) == 0
        assert begun(path) == ["a"]


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Supervised, Supervised, redis.Redis]]:
    """Two supervisors on one Redis, which leave nothing in it when they are stopped."""
    with (
        redis_server() as url,
        supervised("--pool", "slow", redis_url=url) as one,
        supervised("--pool", "slow", redis_url=url) as other,
        redis.Redis.from_url(url) as client,
    ):
        for each in (one, other):
            each.wait_until_ready("slow")
        yield one, other, client
        assert (one.stop(), other.stop()) == (0, 0)
        left: Any = client.keys("recyclery:*")
        assert [key for key in left if not key.endswith(b":reclaimed")] == []


@pytest.mark.chaos
@pytest.mark.timeout(300)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "main"])
def test_under_two_supervisors_a_frozen_worker_is_stood_in_for_and_comes_back_as_a_new_one(
    pair: tuple[Supervised, Supervised, redis.Redis], tmp_path: Path, whole: bool
) -> None:
    one, other, client = pair
    gate, started = tmp_path / "gate", tmp_path / "gate.begun"
    with sending_to(url_of(client)) as sender:
        wait_for(lambda: slow(one)["children"] and slow(other)["children"], "the governors have heard of them")
        task = sender.send_task("sample_app.nap_until", (str(gate),), queue="low").id
        wait_for(started.exists, "it runs")
        # The status may still show a task of the test before: the worker's own line is of this one alone.
        (holder,) = wait_for(lambda: [each for each in (one, other) if task in each.output], "it is told")
        stand_in = other if holder is one else one
        started.unlink()
        before = slow(holder)
        taken_for_dead = holder.output.count("this worker was taken for dead")
        with frozen(before["pid"], *(child["pid"] for child in before["children"] if whole)):
            wait_for(started.exists, f"another runs it:\n{stand_in.output}", 4 * LEASE_SECONDS)
            started.unlink()
            gate.touch()
            wait_for(lambda: count_held(client) == 0, "it is done with")
        holder.wait_for_line("this worker was taken for dead", count=taken_for_dead + 1)
        wait_for(lambda: slow(holder)["pid"] not in (None, before["pid"]), "a new worker is up")
        # It takes its part again, and nothing is run once more.
        so_far = received(one), received(other)

        def both_take_tasks() -> bool:
            run_some(sender)
            return received(one) > so_far[0] and received(other) > so_far[1]

        wait_for(both_take_tasks, "both take tasks")
        assert not started.exists()


def run_some(sender: Celery) -> None:
    """Run some tasks at a time."""
    results = [sender.send_task("sample_app.nap", (0.2,), queue="low") for _ in range(4)]
    for result in results:
        result.get(timeout=60)


def received(running: Supervised) -> int:
    """Count the tasks that its worker has taken."""
    return running.output.count("] received")


def url_of(client: redis.Redis) -> str:
    """Return the URL that a client was made of."""
    return f"redis://127.0.0.1:{client.connection_pool.connection_kwargs['port']}/0"


def slow(running: Supervised) -> dict[str, Any]:
    """Return what the status says of the pool."""
    pool: dict[str, Any] = running.status()["pools"]["slow"]
    return pool
