"""Workers that are up and of no use, for real: each takes the best part of a minute to be sure of."""

import os
import signal
from pathlib import Path

import pytest
from celery import Celery

from support.supervised import Supervised, supervised
from support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
# Within a minute, and as much again for a machine that is busy.
NOTICED_SECONDS = 120.0


def main_of(running: Supervised) -> int:
    """Return the slow pool's main process, once it has spoken to the governor."""
    wait_for(lambda: running.status()["pools"]["slow"]["node"], "the governor has heard of it")
    return int(running.status()["pools"]["slow"]["pid"])


def test_a_stopped_main_process_is_killed_and_its_task_runs_again(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    runs, gate = tmp_path / "runs", tmp_path / "gate"
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        sent = sender.send_task("sample_app.run_until", (str(runs), str(gate)), queue="low")
        wait_for(runs.exists, "it runs")
        main = main_of(running)
        os.kill(main, signal.SIGSTOP)
        running.wait_for_line("give up on slow: killed 2 ", seconds=NOTICED_SECONDS)
        assert f"its main process {main} has not answered for" in running.output
        assert "and is stopped (SIGSTOP); 1 task of it will run again" in running.output
        wait_for(lambda: runs.read_text() == "xx", "it runs again", 20)
        gate.touch()
        assert sent.get(timeout=20) == "xx"
        assert running.status()["pools"]["slow"]["recycles"]["hung"] == 1


def test_a_worker_that_takes_nothing_is_replaced_and_its_queue_is_worked_off(
    sender: Celery, fresh_redis: str
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis, environment={"CELERY_APP": "deaf_app"}) as running:
        running.wait_until_ready("slow")
        main = main_of(running)
        assert sender.control.broadcast("go_deaf", reply=True, timeout=10, limit=1)
        sent = [sender.send_task("sample_app.add", (1, number), queue="low") for number in range(3)]
        running.wait_for_line("replace slow: it could take a task and took none for", seconds=NOTICED_SECONDS)
        assert sum(each.get(timeout=30) for each in sent) == 6
        wait_for(lambda: main_of(running) != main, "another worker takes tasks")


def test_a_worker_whose_queue_an_operator_took_away_is_left_alone(sender: Celery, fresh_redis: str) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        main = main_of(running)
        assert sender.control.cancel_consumer("low", reply=True, timeout=10, limit=1)
        sender.send_task("sample_app.add", (1, 2), queue="low")
        wait_for(lambda: running.status()["pools"]["slow"]["queue_depth"] == 1, "it is counted")
        with pytest.raises(AssertionError, match="not within"):
            running.wait_for_line("replace slow", seconds=60)
        assert main_of(running) == main
