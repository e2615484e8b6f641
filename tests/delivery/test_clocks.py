"""Clocks are set by hours while real workers run tasks: on Redis's host, on one worker's, on all of them."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from celery import Celery

from recyclery_worker.delivery.registry import LEASE_SECONDS, RENEW_SECONDS
from support.bare_worker import BareWorker, bare_worker
from support.redis_server import redis_server
from support.sending import sending_to
from support.stepped_clock import HAS_COMPILER, SteppedClock
from support.supervised import supervised
from support.waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not HAS_COMPILER, reason="no C compiler here")]

HOURS = 5 * 3600
# In which a lease that a step had ended would be noticed.
NOTICED_SECONDS = LEASE_SECONDS + 2 * RENEW_SECONDS


@pytest.fixture
def clock(tmp_path: Path) -> SteppedClock:
    return SteppedClock(tmp_path)


def run_until(sender: Celery, runs: Path, gate: Path) -> None:
    """Have a task run that notes each of its runs, and ends when there is a gate."""
    sender.send_task("sample_app.run_until", (str(runs), str(gate)), queue="low")
    wait_for(runs.exists, "it runs")


def kill(worker: BareWorker) -> None:
    """Kill a worker with its children, as a container dies."""
    processes = [worker.process.pid, *worker.pids()]
    for pid in processes:
        os.kill(pid, signal.SIGKILL)
    worker.process.wait()
    wait_for(lambda: not any(map(psutil.pid_exists, processes)), "all are gone")


@pytest.mark.parametrize("whose", ["redis", "worker", "all"])
def test_no_step_of_a_clock_makes_a_living_worker_dead_or_keeps_a_dead_one_alive(
    clock: SteppedClock, tmp_path: Path, whose: str
) -> None:
    stepped = clock.for_programs()
    of_redis = stepped if whose in {"redis", "all"} else {}
    of_worker = stepped if whose in {"worker", "all"} else {}
    gate, runs = tmp_path / "gate", [tmp_path / "one", tmp_path / "other"]
    with (
        redis_server(environment=of_redis) as url,
        sending_to(url) as sender,
        bare_worker(url, environment=of_worker) as one,
    ):
        run_until(sender, runs[0], gate)
        other_app = of_worker if whose == "all" else {}
        with bare_worker(url, concurrency=2, environment=other_app) as other:
            run_until(sender, runs[1], gate)
            for step in (HOURS, -HOURS):
                clock.set(step)
                time.sleep(NOTICED_SECONDS)
                assert [path.read_text() for path in runs] == ["x", "x"]
                assert (one.stat().reclaimed, other.stat().reclaimed) == (0, 0)
            # The dead one had renewed by the clock that is now set back.
            clock.set(HOURS)
            time.sleep(2 * RENEW_SECONDS)
            kill(one)
            died = time.monotonic()
            clock.set(-HOURS)
            wait_for(lambda: runs[0].read_text() == "xx", "it runs again")
            assert time.monotonic() - died < LEASE_SECONDS + 5
            assert runs[1].read_text() == "x"
            gate.touch()


def test_steps_of_a_containers_clock_end_nothing_in_it(clock: SteppedClock, tmp_path: Path) -> None:
    gate, runs = tmp_path / "gate", tmp_path / "runs"
    with (
        redis_server() as url,
        sending_to(url) as sender,
        supervised("--pool", "slow", redis_url=url, environment=clock.for_programs()) as running,
    ):
        running.wait_until_ready("slow")
        run_until(sender, runs, gate)
        wait_for(lambda: running.status()["pools"]["slow"]["node"], "the governor has heard of it")
        processes = {each.pid for each in psutil.Process(running.process.pid).children(recursive=True)}
        for step in (HOURS, -HOURS, 0):
            clock.set(step)
            time.sleep(NOTICED_SECONDS)
            now = {each.pid for each in psutil.Process(running.process.pid).children(recursive=True)}
            assert now == processes
            assert running.status()["pools"]["slow"]["state"] == "running"
        gate.touch()
        assert running.stop() == 0
        assert runs.read_text() == "x"
