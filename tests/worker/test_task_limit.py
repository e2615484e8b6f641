"""A task is ended for its memory, by an exception in it or with its child: a real worker, asked by its link."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker import link
from recyclery_worker.pool.task_limit import LIMIT_SIGNAL, TaskMemoryLimitExceeded
from support.bare_worker import BareWorker, bare_worker
from support.redis_server import count_held
from support.waiting import is_alive, wait_for

REASON = "limit_app.hold holds 300 MiB more than before it began, and may hold 100 MiB (max_task_bytes of slow)"
KIB = 1024


@pytest.fixture
def worker(fresh_redis: str) -> Iterator[BareWorker]:
    """A worker of one child."""
    with bare_worker(fresh_redis, app="limit_app") as running:
        yield running


def start(worker: BareWorker, sender: Celery, task: str, path: Path) -> tuple[Any, int]:
    """Send a task that waits for a file; return its result to be, and its child once it runs."""
    result = sender.send_task(f"limit_app.{task}", (KIB, str(path)), queue="low")
    wait_for(Path(f"{path}.runs").exists, "the task runs")
    return result, wait_for(lambda: next((c.pid for c in worker.stat().children if c.task_id), 0), "it is told")


def test_a_task_told_to_end_raises_in_it_and_its_child_stays(
    worker: BareWorker, sender: Celery, tmp_path: Path
) -> None:
    result, child = start(worker, sender, "hold", tmp_path / "gate")
    assert worker.ask(link.InterruptTaskRequest(child, result.id, REASON)) == link.RequestDone()
    with pytest.raises(TaskMemoryLimitExceeded, match=r"may hold 100 MiB \(max_task_bytes"):
        result.get(timeout=20)
    assert sender.send_task("limit_app.child", queue="low").get(timeout=20) == child


def test_only_the_task_that_is_named_ends(worker: BareWorker, sender: Celery, tmp_path: Path) -> None:
    first, child = start(worker, sender, "hold", tmp_path / "first")
    refused = link.Refused(f"{child} does not run another")
    assert worker.ask(link.InterruptTaskRequest(child, "another", REASON)) == refused
    assert worker.ask(link.FailTaskRequest(child, "another", REASON)) == refused
    # The note of a task that is over stays.
    assert worker.ask(link.InterruptTaskRequest(child, first.id, REASON)) == link.RequestDone()
    with pytest.raises(TaskMemoryLimitExceeded):
        first.get(timeout=20)
    second, child = start(worker, sender, "hold", tmp_path / "second")
    os.kill(child, LIMIT_SIGNAL)
    (tmp_path / "second").touch()
    assert second.get(timeout=20) == child


def test_a_signal_to_a_child_without_a_note_does_nothing(worker: BareWorker, sender: Celery) -> None:
    os.kill(worker.pids()[0], LIMIT_SIGNAL)
    child = worker.pids()[0]
    assert sender.send_task("limit_app.child", queue="low").get(timeout=20) == child


@pytest.mark.parametrize("task", ["hold_in_c", "hold_on"])
def test_a_task_that_does_not_end_by_itself_fails_with_its_child_and_is_not_given_back(
    worker: BareWorker, sender: Celery, fresh_redis: str, tmp_path: Path, task: str
) -> None:
    result, child = start(worker, sender, task, tmp_path / "gate")
    assert worker.ask(link.InterruptTaskRequest(child, result.id, REASON)) == link.RequestDone()
    if task == "hold_on":
        caught = tmp_path / "gate.caught"
        wait_for(lambda: caught.exists() and caught.read_text() == "TaskMemoryLimitExceeded", "it is caught")
    assert worker.ask(link.FailTaskRequest(child, result.id, REASON)) == link.RequestDone()
    with pytest.raises(TaskMemoryLimitExceeded, match="max_task_bytes"):
        result.get(timeout=20)
    wait_for(lambda: not is_alive(child), "its child is gone")
    # Its place is free, and no other task pays.
    assert sender.send_task("limit_app.child", queue="low").get(timeout=20) != child
    assert worker.stat().departures == [link.Departure(child, "task_memory")]
    assert (tmp_path / "gate.runs").read_text() == "x"
    wait_for(lambda: count_held(redis.Redis.from_url(fresh_redis)) == 0, "it is acknowledged")
