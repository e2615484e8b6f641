"""A real supervisor's history: read while the governor writes it, and after all is dead."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery.history.reader import NoHistory, open_history
from support.redis_server import empty
from support.supervised import Supervised, supervised
from support.waiting import wait_for


@pytest.fixture(scope="module")
def slow(redis_url: str) -> Iterator[Supervised]:
    """A supervisor with the slow pool up."""
    empty(redis_url)
    with supervised("--pool", "slow", redis_url=redis_url) as running:
        running.wait_until_ready("slow")
        # What a child says before the governor listens is heard by nobody.
        running.wait_for_line("watching slow")
        yield running


def runs_of(history: Path, task: str) -> int:
    """Return how many runs of a task are in the file; none before there is a file."""
    try:
        with open_history(history) as found:
            return sum(run.tasks.get(task, 0) for run in found.runs("slow", 0, time.time() + 1, 1000))
    except NoHistory:
        return 0


def leaks(history: Path) -> dict[str, dict[str, Any]]:
    """Return what `recyclery leaks` says of each task."""
    asked = [sys.executable, "-m", "recyclery", "leaks", "--json", "--history", str(history)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {task["task"]: task for pool in json.loads(done.stdout)["pools"] for task in pool["tasks"]}


def test_each_task_is_told_with_what_it_left_though_the_queue_was_never_empty(
    slow: Supervised, sender: Celery
) -> None:
    leave, nap = ("sample_app.leave_memory", (3_000_000,)), ("sample_app.nap", (0.03,))
    # The first is short: it is told of with the nap behind it, and the other nap tells the two apart.
    sent = [
        sender.send_task(name, arguments, queue="low")
        for _ in range(12)
        for name, arguments in (leave, nap, nap)
    ]
    for result in sent:
        result.get(timeout=60)
    history = slow.runtime_dir / "state" / "history.db"
    wait_for(lambda: runs_of(history, "sample_app.nap") >= 24, "all are in the history")
    found = leaks(history)
    assert found["sample_app.leave_memory"]["bytes_per_run"] == pytest.approx(3_000_000, rel=0.05)
    assert found["sample_app.leave_memory"]["place"] == "python"
    assert found["sample_app.nap"]["bytes_per_run"] == pytest.approx(0, abs=300_000)


def test_of_tasks_without_a_pause_the_one_that_leaves_its_browser_is_named(
    slow: Supervised, sender: Celery, false_browser: str
) -> None:
    forgets, naps = ("sample_app.leave_process_later", (false_browser,)), ("sample_app.nap", (0.4,))
    sent = [
        sender.send_task(name, arguments, queue="low") for _ in range(8) for name, arguments in (forgets, naps)
    ]
    for result in sent:
        result.get(timeout=60)
    history = slow.runtime_dir / "state" / "history.db"

    def named() -> int:
        return int(leaks(history)["sample_app.leave_process_later"]["browsers_left"])

    wait_for(lambda: runs_of(history, "sample_app.nap") >= 8 and named() >= 6, "it is named")
    found = leaks(history)
    assert "it left a browser running" in found["sample_app.leave_process_later"]["note"]
    assert found["sample_app.nap"]["browsers_left"] == 0
    assert found["sample_app.nap"]["places"]["browser"]["bytes_per_run"] == pytest.approx(0, abs=100_000)


def test_the_history_is_read_when_governor_and_supervisor_were_killed(slow: Supervised, sender: Celery) -> None:
    sender.send_task("sample_app.nap", (0.03,), queue="low").get(timeout=30)
    history = slow.runtime_dir / "state" / "history.db"
    wait_for(lambda: runs_of(history, "sample_app.nap"), "it is written")
    governor = next(line for line in reversed(slow.lines) if "spawned: 'governor'" in line)
    os.kill(slow.process.pid, signal.SIGSTOP)
    os.kill(int(governor.rsplit(" ", 1)[1]), signal.SIGKILL)
    try:
        assert leaks(history)["sample_app.nap"]["runs"] >= 1
    finally:
        os.kill(slow.process.pid, signal.SIGCONT)
