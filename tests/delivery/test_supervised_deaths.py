"""Under the whole supervisor: a task whose worker is killed runs again within seconds."""

import os
import signal
from pathlib import Path

import pytest
from celery import Celery

from support.supervised import supervised
from support.waiting import wait_for


@pytest.mark.parametrize("pools", [pytest.param(("fast", "slow"), marks=pytest.mark.slow), ("slow",)])
def test_a_task_whose_worker_was_killed_runs_again_without_waiting_for_its_lease(
    sender: Celery, fresh_redis: str, tmp_path: Path, pools: tuple[str, ...]
) -> None:
    path, gate = tmp_path / "runs", tmp_path / "gate"
    options = [word for pool in pools for word in ("--pool", pool)]
    with supervised(*options, redis_url=fresh_redis) as running:
        running.wait_until_ready(*pools)
        sent = sender.send_task("sample_app.run_until", (str(path), str(gate)), queue="low")
        wait_for(path.exists, "it runs")
        wait_for(lambda: running.status()["pools"]["slow"]["node"], "the governor has heard of it")
        os.kill(running.status()["pools"]["slow"]["pid"], signal.SIGKILL)
        wait_for(lambda: path.read_text() == "xx", "it runs again")
        gate.touch()
        assert sent.get(timeout=60) == "xx"
        wait_for(lambda: running.status()["tasks"]["reclaimed"] == 1, "it is counted")
        # Not by the lease, which would have run out in the end.
        running.wait_for_line("its processes are dead")
        running.wait_for_line("reclaim what slow held")
