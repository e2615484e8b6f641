"""Whichever way a worker ends that can still run Python: it gives back what it holds, and says if it cut."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import redis
from celery import Celery
from celery.concurrency.asynpool import AsynPool
from celery.worker import state
from celery.worker.consumer import Consumer
from celery.worker.request import Request

from recyclery.control.client import ask_governor
from recyclery_worker.delivery.cut_off import CANCEL_RUNNING, exit_status, watch_tasks
from support.bare_worker import bare_worker
from support.redis_server import count_held, redis_server
from support.supervised import Supervised, supervised
from support.waiting import wait_for

# Heroku's advice.
REMAPPED = {"REMAP_SIGTERM": "SIGQUIT"}
SOFT = ".soft_shutdown_timeout=3"


def runs(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def our_keys(client: redis.Redis) -> list[bytes]:
    found: Any = client.keys("recyclery:*")
    # The mark of what was given back is forgotten with time.
    return [key for key in found if not key.endswith(b":reclaimed")]


def start_task(sender: Celery, path: Path, seconds: float, others: int = 0) -> None:
    sender.send_task("sample_app.note", (str(path), "a", seconds), queue="low")
    wait_for(lambda: runs(path) == ["a"], "it runs")
    for _ in range(others):
        sender.send_task("sample_app.add", (1, 1), queue="low", countdown=600)
    # The worker hears of what its child has accepted; with room, it takes the others.
    time.sleep(1)


def send_in_turn(*signums: int) -> Callable[[int], None]:
    def send(pid: int) -> None:
        for number, signum in enumerate(signums):
            if number:
                time.sleep(0.7)
            os.kill(pid, signum)

    return send


def term_everything(pid: int) -> None:
    """Send TERM to a process and all below it, as Heroku and some shells do."""
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        process.terminate()


@pytest.mark.parametrize(
    ("stop", "circumstances"),
    [
        (send_in_turn(signal.SIGQUIT), ({}, [], 1)),
        pytest.param(send_in_turn(signal.SIGTERM), (REMAPPED, [], 0), marks=pytest.mark.slow),
        pytest.param(send_in_turn(signal.SIGTERM, signal.SIGQUIT), ({}, [], 0), marks=pytest.mark.slow),
        pytest.param(send_in_turn(signal.SIGINT, signal.SIGINT), ({}, [], 0), marks=pytest.mark.slow),
        pytest.param(send_in_turn(signal.SIGQUIT), ({}, [SOFT], 1), marks=pytest.mark.slow),
        pytest.param(send_in_turn(*3 * [signal.SIGQUIT]), ({}, [SOFT], 1), marks=pytest.mark.slow),
        pytest.param(term_everything, ({}, [], 0), marks=pytest.mark.slow),
    ],
    ids=["QUIT", "remapped TERM", "TERM, QUIT", "Ctrl-C twice", "soft", "hard", "TERM to all"],
)
def test_a_worker_that_cuts_its_task_off_gives_it_back_and_exits_with_1(
    sender: Celery,
    fresh_redis: str,
    tmp_path: Path,
    stop: Callable[[int], None],
    circumstances: tuple[Mapping[str, str], Sequence[str], int],
) -> None:
    environment, settings, deaths = circumstances
    options = ("--prefetch-multiplier", "2", *settings)
    with bare_worker(fresh_redis, environment=environment, options=options) as worker:
        start_task(sender, tmp_path / "runs", 60, others=1)
        stop(worker.process.pid)
        assert worker.process.wait(30) == 1
        with redis.Redis.from_url(fresh_redis) as client:
            # It is a death of the task only where a QUIT came to a worker that nobody had told to stop.
            assert [key.startswith(b"recyclery:deaths:") for key in our_keys(client)] == [True] * deaths
            assert client.llen("low") == 2
        assert runs(tmp_path / "runs") == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "settings"), [(signal.SIGINT, []), (signal.SIGQUIT, [SOFT])], ids=["Ctrl-C", "soft"]
)
def test_a_worker_whose_task_ends_in_time_exits_with_0(
    sender: Celery, fresh_redis: str, tmp_path: Path, signum: int, settings: Sequence[str]
) -> None:
    options = ("--prefetch-multiplier", "2", *settings)
    with bare_worker(fresh_redis, options=options) as worker:
        start_task(sender, tmp_path / "runs", 2.5, others=1)
        os.kill(worker.process.pid, signum)
        assert worker.process.wait(30) == 0
        with redis.Redis.from_url(fresh_redis) as client:
            assert our_keys(client) == []
            # The one with a countdown had not begun.
            assert client.llen("low") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "signums", [(signal.SIGTERM, signal.SIGHUP), (signal.SIGHUP, signal.SIGTERM)], ids=["then HUP", "after HUP"]
)
def test_a_worker_that_is_told_to_end_does_not_restart(
    sender: Celery, fresh_redis: str, tmp_path: Path, signums: Sequence[int]
) -> None:
    with bare_worker(fresh_redis) as worker:
        start_task(sender, tmp_path / "runs", 2)
        send_in_turn(*signums)(worker.process.pid)
        assert worker.process.wait(6) == 0


@pytest.mark.slow
def test_an_idle_worker_that_is_stopped_at_once_gives_back_what_waits_for_its_time(
    sender: Celery, fresh_redis: str
) -> None:
    with bare_worker(fresh_redis) as worker, redis.Redis.from_url(fresh_redis) as client:
        sender.send_task("sample_app.add", (1, 1), queue="low", countdown=600)
        wait_for(lambda: count_held(client) == 1, "it is held")
        os.kill(worker.process.pid, signal.SIGQUIT)
        assert worker.process.wait(30) == 0
        assert our_keys(client) == []
        assert client.llen("low") == 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["nap_until", "nap_until_once"], ids=["late", "early"])
def test_a_worker_that_must_end_at_once_ends_though_redis_is_away(tmp_path: Path, task: str) -> None:
    # The heartbeat of Celery's events would wait for Redis, if it were due while the pool stops.
    with redis_server() as url, bare_worker(url, options=("--without-heartbeat",)) as worker:
        with Celery(broker=url, backend=url) as sender:
            sender.send_task(f"sample_app.{task}", (str(tmp_path / "gate"),), queue="low")
            wait_for((tmp_path / "gate.begun").exists, "it runs")
            wait_for(lambda: worker.stat().children[0].task_id, "the worker has heard of it")
        with redis.Redis.from_url(url) as client:
            os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)
        os.kill(worker.process.pid, signal.SIGQUIT)
        assert worker.process.wait(25) == 1


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_task_that_celery_cancels_for_a_lost_connection_runs_again_and_gives_up_its_place(
    sender: Celery, fresh_redis: str, tmp_path: Path, concurrency: int
) -> None:
    settings = (".cancel_long_running_tasks_on_connection_loss=1",)
    first, second = tmp_path / "first", tmp_path / "second"
    client = redis.Redis.from_url(fresh_redis)
    with client, bare_worker(fresh_redis, concurrency=concurrency, options=settings):
        start_task(sender, first, 4)
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        wait_for(lambda: runs(first) == ["a", "a"], "it runs again", 10)
        wait_for(lambda: count_held(client) == 0, "it is done")
        for _ in range(concurrency):
            sender.send_task("sample_app.note", (str(second), "b", 5), queue="low")
        wait_for(lambda: len(runs(second)) == concurrency, "all places are there", 4)
    assert runs(first) == ["a", "a"]


@pytest.mark.slow
def test_a_message_with_the_id_of_a_running_task_runs_after_it_though_the_connection_is_lost(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    path, options = tmp_path / "runs", ("--prefetch-multiplier", "2")
    with redis.Redis.from_url(fresh_redis) as client, bare_worker(fresh_redis, options=options):
        sender.send_task("sample_app.note", (str(path), "a", 4), queue="low", task_id="one")
        wait_for(lambda: runs(path) == ["a"], "it runs")
        sender.send_task("sample_app.note", (str(path), "b", 0), queue="low", task_id="one")
        wait_for(lambda: count_held(client) == 2, "both are in hand")
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)
        wait_for(lambda: runs(path) == ["a", "b"], "the second runs", 15)
        wait_for(lambda: count_held(client) == 0, "both are done")


def stop_twice(running: Supervised) -> None:
    running.process.terminate()
    time.sleep(1.5)
    running.process.terminate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "environment"),
    [
        (stop_twice, {}),
        (lambda running: running.process.terminate(), {"RECYCLERY_GRACE": "3"}),
        (lambda running: running.process.terminate(), REMAPPED),
        (lambda running: term_everything(running.process.pid), {}),
    ],
    ids=["TERM twice", "grace over", "remapped TERM", "TERM to all"],
)
def test_nothing_waits_for_a_lease_when_a_container_has_stopped_that_cut_its_tasks_off(
    sender: Celery,
    fresh_redis: str,
    tmp_path: Path,
    stop: Callable[[Supervised], None],
    environment: Mapping[str, str],
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=environment) as running:
        running.wait_until_ready("slow")
        start_task(sender, tmp_path / "runs", 60)
        stop(running)
        assert running.wait() == 1
    with redis.Redis.from_url(fresh_redis) as client:
        assert our_keys(client) == []
        assert client.llen("low") == 1


@pytest.mark.slow
def test_a_worker_that_is_replaced_finishes_its_task_though_term_stops_it_at_once(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis, environment=REMAPPED) as running:
        running.wait_until_ready("slow")
        gate = tmp_path / "gate"
        sent = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        child = running.status()["pools"]["slow"]["children"][0]["pid"]
        ask_governor(running.runtime_dir, "recycle", table="slow")
        running.wait_for_line("slow finishes the tasks that it has")
        gate.touch()
        assert sent.get(timeout=30) == child
        assert running.stop() == 0


@pytest.mark.parametrize(("stop", "terminate", "status"), [(None, 1, 1), (0, None, 1), (1, None, 0)])
def test_a_stopping_worker_that_fails_exits_with_1_and_one_after_a_ctrl_c_with_0(
    monkeypatch: pytest.MonkeyPatch, stop: int | None, terminate: int | None, status: int
) -> None:
    monkeypatch.setattr(state, "should_stop", stop)
    monkeypatch.setattr(state, "should_terminate", terminate)
    assert exit_status(1) == status


QUITS = """
import os, signal, time
from celery import Celery

app = Celery("quits", broker=os.environ["REDIS_URL"])

@app.task(name="quits.quit")
def quit():
    os.kill(os.getppid(), signal.SIGQUIT)
    time.sleep(600)
"""


@pytest.mark.slow
def test_a_worker_that_is_told_to_quit_as_soon_as_its_task_runs_ends_at_once(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    (tmp_path / "quits.py").write_text(QUITS)
    sender.send_task("quits.quit", queue="low")
    environment = {
        **os.environ,
        "CELERY_CUSTOM_WORKER_POOL": "recyclery_worker.pool:TaskPool",
        "PYTHONPATH": str(tmp_path),
        "REDIS_URL": fresh_redis,
        "RECYCLERY_POOL": "low",
        "RECYCLERY_SLOT": "low",
        "RECYCLERY_RUNTIME_DIR": str(tmp_path),
    }
    command = ["-m", "recyclery_worker.celery", "-A", "quits", "worker", "-P", "custom", "-Q", "low", "-c", "1"]
    with subprocess.Popen([sys.executable, *command], env=environment) as worker:
        try:
            assert worker.wait(30) == 1
        finally:
            worker.kill()
    with redis.Redis.from_url(fresh_redis) as client:
        assert client.llen("low") == 1


def test_what_has_just_begun_is_read_before_a_cold_stop_cancels_what_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done: list[str] = []
    for private in ("on_failure", "_announce_cancelled"):
        monkeypatch.setattr(Request, private, getattr(Request, private))
    (name,) = [name for name in CANCEL_RUNNING if hasattr(Consumer, name)]
    monkeypatch.setattr(Consumer, name, lambda _: done.append("cancelled"))
    watch_tasks(SimpleNamespace(pool=None))
    pool: Any = AsynPool.__new__(AsynPool)
    pool._pool, pool.process_flush_queues = ["child"], lambda process: done.append(f"read {process}")
    consumer: Any = SimpleNamespace(pool=SimpleNamespace(_pool=pool))
    getattr(Consumer, name)(consumer)
    assert done == ["read child", "cancelled"]
