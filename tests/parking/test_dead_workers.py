"""Workers that die as a whole: what had begun there has died with them, and nothing else has."""

import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery_worker.delivery.lease import reclaim
from recyclery_worker.delivery.registry import Registry
from recyclery_worker.parking.admission import ALONE_POLL_SECONDS, read_in_flight
from recyclery_worker.parking.alone import SUSPICIONS
from recyclery_worker.parking.begun import begun_folder
from recyclery_worker.parking.records import DeadLetterStore, Death, StartedRun, in_flight_key
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


def has_run(marks: Path, times: int) -> bool:
    return marks.exists() and marks.stat().st_size == times


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
    assert (len(lot.list_deaths(begun.id)), len(lot.list_deaths(waiting.id))) == (1, 0)
    assert lot.list_deaths(begun.id)[0].how == "its worker died"


def test_a_child_that_was_killed_before_did_not_run_beside_what_ends_its_worker_later(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bare_worker(fresh_redis, max_task_deaths=1) as worker:
        monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(worker.runtime_dir))
        deadly = sender.send_task("sample_app.die", (str(tmp_path / "deadly"), 99), queue="low")
        with pytest.raises(Exception, match="it is parked"):
            deadly.get(timeout=30)
        generation = worker.stat().generation
        sent = sender.send_task("sample_app.end_worker", (str(tmp_path / "runs"), 1), queue="low")
        worker.process.wait(30)
        held = wait_for(lambda: Registry(lot.client).find(generation), "it is known")
        assert reclaim(sender, held) == 1
    assert [death.beside for death in lot.list_deaths(sent.id)] == [0]


def test_a_task_whose_worker_dies_before_its_start_is_in_redis_has_died(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as worker:
        monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(worker.runtime_dir))
        sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30)
        generation = worker.stat().generation
        sent = sender.send_task("sample_app.end_worker", (str(path), 1), queue="low")
        worker.process.wait(30)
        # It may have been written just in between.
        lot.client.delete(in_flight_key(generation))
        held = wait_for(lambda: Registry(lot.client).find(generation), "it is known")
        assert reclaim(sender, held) == 1
        assert not begun_folder(generation).exists()
    assert len(lot.list_deaths(sent.id)) == 1
    (death,) = lot.list_deaths(sent.id)
    assert death.how == "its worker died"


def test_a_task_that_a_stop_cut_off_has_not_died(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as worker:
        monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(worker.runtime_dir))
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
    assert lot.list_deaths(sent.id) == []


@pytest.mark.parametrize("how", [(["QUIT"], 1), (["TERM", "QUIT"], 0)], ids=["quit", "asked"])
def test_a_task_whose_worker_was_ended_by_a_quit_has_died_where_nobody_had_told_that_to_stop(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore, how: tuple[list[str], int]
) -> None:
    signals, deaths = how
    path = tmp_path / "runs"
    with bare_worker(fresh_redis) as worker:
        sent = sender.send_task("sample_app.note", (str(path), "a", 600), queue="low")
        generation = begin(worker, lot, path.exists)
        for name in signals:
            os.kill(worker.process.pid, getattr(signal, f"SIG{name}"))
            if name == "TERM":
                wait_for(lambda: not read_in_flight(lot, generation), "it knows that it is to stop")
        worker.process.wait(60)
        if (held := Registry(lot.client).find(generation)) is not None:
            reclaim(sender, held)
    assert len(lot.list_deaths(sent.id)) == deaths


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


@pytest.mark.slow
def test_a_task_that_keeps_killing_its_worker_is_parked_and_the_one_that_ran_beside_it_is_not(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    killer_runs, neighbour_runs, kill, end = (
        tmp_path / name for name in ("killer", "neighbour", "kill", "end")
    )
    neighbour = sender.send_task("sample_app.run_until", (str(neighbour_runs), str(end)), queue="low")
    killer = sender.send_task("sample_app.end_worker_when", (str(killer_runs), str(kill)), queue="low")
    for run in range(1, 6):
        kill.unlink(missing_ok=True)
        with bare_worker(fresh_redis, concurrency=2) as worker:
            monkeypatch.setenv("RECYCLERY_RUNTIME_DIR", str(worker.runtime_dir))
            generation = worker.stat().generation
            if run == 3:
                # Each runs alone now.
                end.touch()
                assert neighbour.get(timeout=60) == "xxx"
            wait_for(partial(has_run, killer_runs, run), "the killer runs")
            wait_for(partial(has_run, neighbour_runs, min(run, 3)), "its neighbour runs")
            kill.touch()
            worker.process.wait(60)
            held = Registry(lot.client).find(generation)
            assert held is not None
            reclaim(sender, held)
    with bare_worker(fresh_redis, concurrency=2):
        wait_for(lot.list_parked, "it is parked")
        assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
    assert [task.task_id for task in lot.list_parked()] == [killer.id]
    assert has_run(killer_runs, 5)
    assert lot.list_deaths(neighbour.id) == []


@pytest.mark.slow
def test_a_task_that_waits_to_run_alone_runs_once_though_its_connection_is_lost(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    for number in range(SUSPICIONS):
        death = Death(at=float(number), how="its worker died", node="low@gone", beside=1)
        lot.record_death(StartedRun(f"gone/{number}", "suspect"), death)
    with bare_worker(fresh_redis, concurrency=2) as worker:
        other = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "another runs")
        sender.send_task("sample_app.note", (str(runs), "a", 0), queue="aside", task_id="suspect")
        content: Any = json.loads(lot.client.rpop("aside") or b"")
        content["properties"]["delivery_info"] |= {"routing_key": "low", "redelivered": True}
        lot.client.lpush("low", json.dumps(content))
        wait_for(lambda: count_held(lot.client) == 2, "it waits")
        for kind in ("normal", "pubsub"):
            lot.client.client_kill_filter(_type=kind, skipme=True)
        # Longer than until it looks again whether it may run.
        time.sleep(2 * ALONE_POLL_SECONDS)
        assert not runs.exists()
        gate.touch()
        assert other.get(timeout=30) in worker.pids()
        wait_for(lambda: count_held(lot.client) == 0, "both are done")
    assert runs.read_text() == "a\n"
