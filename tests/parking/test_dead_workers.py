"""Workers that die as a whole: what had begun there has died with them, and nothing else has."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from recyclery_worker.delivery.lease import reclaim
from recyclery_worker.delivery.registry import Registry
from recyclery_worker.parking.admission import read_in_flight
from recyclery_worker.parking.records import DeadLetterStore
from support.bare_worker import BareWorker, bare_worker
from support.redis_server import count_held
from support.waiting import is_alive, wait_for


def begin(worker: BareWorker, lot: DeadLetterStore, look: Callable[[], bool]) -> str:
    """Wait until a task has begun, and until its worker has written that down; return the generation."""
    wait_for(look, "it runs")
    generation: str = worker.stat().generation
    wait_for(lambda: read_in_flight(lot, generation), "its start is written down")
    return generation


def kill_and_reclaim(worker: BareWorker, generation: str, lot: DeadLetterStore, sender: Celery) -> None:
    """Kill a worker's main process, and give back what it held."""
    children = worker.pids()
    os.kill(worker.process.pid, signal.SIGKILL)
    worker.process.wait()
    wait_for(lambda: not any(map(is_alive, children)), "the children's end")
    held = Registry(lot.client).find(generation)
    assert held is not None
    reclaim(sender, held)


def test_of_what_a_dead_worker_held_only_what_had_begun_has_died(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis, options=("--prefetch-multiplier", "2")) as worker:
        begun, waiting = (
            sender.send_task("sample_app.note", (str(path), mark, 600), queue="low") for mark in ("a", "b")
        )
        wait_for(lambda: count_held(lot.client) == 2, "both are in hand")
        generation = begin(worker, lot, path.exists)
        kill_and_reclaim(worker, generation, lot, sender)
    assert (lot.count_deaths(begun.id), lot.count_deaths(waiting.id)) == (1, 0)
    assert lot.list_deaths(begun.id)[0].how == "its worker died"


def test_a_task_that_a_stop_cut_off_has_not_died(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as worker:
        sent = sender.send_task("sample_app.note", (str(path), "a", 600), queue="low")
        generation = begin(worker, lot, path.exists)
        worker.process.terminate()
        wait_for(lambda: not read_in_flight(lot, generation), "it knows that it is to stop")
        # As at the end of the grace.
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        held = Registry(lot.client).find(generation)
        assert held is not None
        assert reclaim(sender, held) == 1
    assert lot.count_deaths(sent.id) == 0


@pytest.mark.slow
def test_a_task_whose_workers_keep_dying_is_parked_however_soon_they_die(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    path = tmp_path / "runs"
    sent = sender.send_task("sample_app.note", (str(path), "a", 600), queue="low")
    with bare_worker(fresh_redis, max_task_deaths=2) as worker:
        kill_and_reclaim(worker, begin(worker, lot, path.exists), lot, sender)
    with bare_worker(fresh_redis, max_task_deaths=2) as worker:
        generation = worker.stat().generation
        wait_for(lambda: path.read_text().split() == ["a", "a"], "it runs again")
        kill_and_reclaim(worker, generation, lot, sender)
    with bare_worker(fresh_redis, max_task_deaths=2):
        wait_for(lambda: sender.AsyncResult(sent.id).state == "FAILURE", "it is parked")
    assert path.read_text().split() == ["a", "a"]
