"""A pool with a beat inside its worker (-B) never has two of them, however the worker is replaced."""

import os
import signal
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.beat import PersistentScheduler

from recyclery.control.client import ask_governor
from support.supervised import supervised
from support.waiting import is_alive, wait_for


def write_schedule(path: Path) -> None:
    """Write beat's file as of two hours ago, so that the hourly task is due."""
    app = Celery("beats", set_as_current=False)
    app.conf.beat_schedule = {"hourly": {"task": "hourly", "schedule": 3600.0}}
    scheduler: Any = PersistentScheduler(app, schedule_filename=str(path))
    scheduler.schedule["hourly"].last_run_at -= timedelta(hours=2)
    scheduler.close()


@pytest.mark.slow
def test_no_tick_is_sent_twice_whether_the_worker_is_replaced_or_killed(
    fresh_redis: str, tmp_path: Path
) -> None:
    config, schedule, sent = tmp_path / "recyclery.toml", tmp_path / "schedule", tmp_path / "sent"
    config.write_text(f'[pools.slow]\ncelery_options = ["-EB", "-s", "{schedule}"]\n')
    write_schedule(schedule)

    def beats() -> list[tuple[int, list[str]]]:
        """The pids that sent, one after the other, each with what it sent."""
        lines = [line.split() for line in sent.read_text().splitlines()] if sent.exists() else []
        return [(int(pid), [task for _, task in each]) for pid, each in groupby(lines, lambda line: line[0])]

    variables = {"CELERY_APP": "beat_app", "SENT": str(sent)}
    options = ("--config", str(config), "--pool", "slow")
    with supervised(*options, redis_url=fresh_redis, environment=variables) as running:

        def worker() -> int:
            pid: int = running.status()["pools"]["slow"]["pid"]
            return pid

        wait_for(lambda: beats() and "hourly" in beats()[0][1], "beat sends", 60)
        wait_for(lambda: running.status()["pools"]["slow"]["node"], "the governor has heard of the worker", 60)
        before = worker()
        ask_governor(running.runtime_dir, "recycle", table="slow")
        running.wait_for_line(
            "replace slow: asked to; beat runs inside it (-B), and two would send each task twice"
        )
        wait_for(lambda: len(beats()) > 1 and len(beats()[1][1]) > 4, "another beat sends", 60)
        assert not is_alive(before)
        assert "spawned: 'slow-b'" not in running.output
        wait_for(lambda: worker() not in (0, before), "the new one is known", 60)
        os.kill(worker(), signal.SIGKILL)
        wait_for(lambda: len(beats()) > 2 and len(beats()[2][1]) > 4, "a third one sends", 60)
        pids, tasks = zip(*beats(), strict=True)
        assert len(set(pids)) == len(pids) == 3
        assert [each.count("hourly") for each in tasks] == [1, 0, 0]
        assert [is_alive(pid) for pid in pids] == [False, False, True]
