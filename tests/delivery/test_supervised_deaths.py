"""Under the whole supervisor: a task whose worker is killed runs again within seconds."""

import os
import signal
import time
from pathlib import Path

import pytest
from celery import Celery

from recyclery_worker.delivery.generations import LEASE_SECONDS
from support.supervised import supervised
from support.waiting import wait_for


@pytest.mark.parametrize("pools", [("fast", "slow"), ("slow",)])
def test_a_task_whose_worker_was_killed_runs_again_before_any_lease_has_run_out(
    sender: Celery, fresh_redis: str, tmp_path: Path, pools: tuple[str, ...]
) -> None:
    path = tmp_path / "runs"
    options = [word for pool in pools for word in ("--pool", pool)]
    with supervised(*options, redis_url=fresh_redis) as running:
        running.wait_until_ready(*pools)
        sent = sender.send_task("sample_app.note", (str(path), "a", 2), queue="low")
        wait_for(path.exists, "it runs")
        os.kill(running.status()["pools"]["slow"]["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: path.read_text().split() == ["a", "a"], "it runs again")
        assert time.monotonic() - killed < LEASE_SECONDS
        sent.get(timeout=20)
        wait_for(lambda: running.status()["tasks"]["reclaimed"] == 1, "it is counted")
        assert any("reclaim what slow held" in line for line in running.lines)
