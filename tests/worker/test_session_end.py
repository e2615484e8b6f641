"""However a child ends, its real browser goes too: the whole supervisor, seen from outside.

How soon: scripts/bench browsers --part kills.
"""

import os
import signal
from pathlib import Path

import pytest
from celery import Celery

from recyclery_worker.browser.driver import find_browser
from support.started import started_by
from support.supervised import supervised
from support.waiting import is_alive, wait_for


@pytest.mark.browser
@pytest.mark.parametrize("way", ["max_tasks", "hard limit", "revoke SIGTERM", "revoke SIGKILL", "SIGKILL"])
def test_nothing_that_a_child_started_stays_after_its_end(
    sender: Celery, fresh_redis: str, tmp_path: Path, way: str
) -> None:
    pair = find_browser()
    max_tasks = "1" if way == "max_tasks" else "1000"
    variables = {"CELERY_WORKER_NAME": "slow", "CELERY_MAX_TASKS_PER_CHILD": max_tasks}
    with supervised(redis_url=fresh_redis, environment=variables) as running:
        running.wait_until_ready("slow")
        task = sender.send_task(
            "sample_app.open_browser",
            (str(pair.chrome), str(pair.chromedriver), str(tmp_path), 1 if way == "max_tasks" else 600),
            queue="low",
            time_limit=20 if way == "hard limit" else None,
        )
        wait_for((tmp_path / "child").exists, "its browser is open", seconds=60)
        child = int((tmp_path / "child").read_text())
        assert len(started_by(child)) >= 8
        if way == "SIGKILL":
            sender.control.revoke(task.id)  # Else it is run again.
            os.kill(child, signal.SIGKILL)
        elif way.startswith("revoke"):
            sender.control.revoke(task.id, terminate=True, signal=way.split()[1])
        wait_for(lambda: not is_alive(child), "the child's end")
        wait_for(lambda: not started_by(child), "the end of what it started")


@pytest.mark.browser
def test_a_kept_browser_serves_task_after_task_and_leaves_with_its_child(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    variables = {"CELERY_WORKER_NAME": "slow", "CELERY_MAX_TASKS_PER_CHILD": "3"}
    with supervised(redis_url=fresh_redis, environment=variables) as running:
        running.wait_until_ready("slow")
        profiles, seen_kept = set(), False
        for _ in range(3):
            sent = sender.send_task("sample_app.browse", (str(tmp_path), 100), queue="low")
            profiles.add(sent.get(timeout=60))
            if len(profiles) == 1 and not seen_kept:
                # The governor has looked: to it a kept browser is no leftover.
                seen_kept = wait_for(lambda: running.status()["browsers"]["kept"] == 1, "it is known as kept")
        child = int((tmp_path / "child").read_text())
        wait_for(lambda: not is_alive(child), "the child's end")
        assert len(profiles) == 1
        wait_for(lambda: not started_by(child), "the end of what it started")
        assert not Path(profiles.pop()).exists()
