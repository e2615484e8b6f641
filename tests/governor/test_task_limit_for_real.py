"""`max_task_bytes` under a whole supervisor: which tasks end for it, how, and who pays."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from recyclery_worker.pool.task_limit import TaskMemoryLimitExceeded
from support.redis_server import count_held
from support.supervised import Supervised, supervised
from support.waiting import is_alive, wait_for

MIB = 1 << 20
CONFIG = """
[pools.slow]
concurrency = 2
max_task_bytes = { "limit_app.roomy" = "400MiB", "*" = "100MiB" }
"""


@pytest.fixture
def running(fresh_redis: str, tmp_path: Path) -> Iterator[Supervised]:
    """A supervisor of one pool of two children, which hold 60 MiB in common from before the fork."""
    config = tmp_path / "recyclery.toml"
    config.write_text(CONFIG)
    variables = {"CELERY_APP": "limit_app", "PRELOADED_BYTES": str(60 * MIB)}
    with supervised(
        "--config", str(config), "--memory-limit", "2GiB", redis_url=fresh_redis, environment=variables
    ) as supervisor:
        supervisor.wait_until_ready("slow")
        yield supervisor


def send(sender: Celery, task: str, *arguments: object) -> Any:
    return sender.send_task(f"limit_app.{task}", arguments, queue="low")


def test_a_task_past_its_limit_raises_and_nobody_else_pays(
    running: Supervised, sender: Celery, tmp_path: Path
) -> None:
    neighbour = send(sender, "hold", 50 * MIB, str(tmp_path / "gate"))
    wait_for((tmp_path / "gate.runs").exists, "the neighbour runs")
    result = send(sender, "hold", 300 * MIB, str(tmp_path / "never"))
    with pytest.raises(TaskMemoryLimitExceeded, match=r"may take 100 MiB \(max_task_bytes of slow\)") as raised:
        result.get(timeout=60)
    taken = re.search(r"limit_app.hold has taken (\d+) MiB", str(raised.value))
    assert taken is not None
    assert 299 <= int(taken[1]) <= 310
    (tmp_path / "gate").touch()
    neighbour.get(timeout=20)
    assert (tmp_path / "gate.runs").read_text() == (tmp_path / "never.runs").read_text() == "x"
    status = running.status()
    assert status["tasks"] == {"reclaimed": 0, "parked": 0}
    assert "hold slow" not in running.output
    assert "preempt" not in running.output


def test_a_task_that_does_not_end_fails_with_its_child_and_does_not_run_again(
    running: Supervised, sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    result = send(sender, "hold_in_c", 200 * MIB, str(tmp_path / "gate"))
    with pytest.raises(TaskMemoryLimitExceeded, match="max_task_bytes"):
        result.get(timeout=60)
    wait_for(lambda: running.status()["pools"]["slow"]["recycles"] == {"task_memory": 1}, "it is counted")
    client = redis.Redis.from_url(fresh_redis)
    assert count_held(client) == 0
    assert client.keys("recyclery:deaths:*") == []
    send(sender, "child").get(timeout=20)
    assert (tmp_path / "gate.runs").read_text() == "x"
    assert running.status()["tasks"] == {"reclaimed": 0, "parked": 0}
    assert "exited unexpectedly" not in running.output


def test_what_a_task_starts_counts_with_it(running: Supervised, sender: Celery, tmp_path: Path) -> None:
    result = send(sender, "hold_elsewhere", 200 * MIB, str(tmp_path / "gate"))
    with pytest.raises(TaskMemoryLimitExceeded, match="with all that it started"):
        result.get(timeout=60)
    program = int((tmp_path / "gate.program").read_text())
    # The task that comes next does not pay for what this one left.
    assert is_alive(program)
    gate = tmp_path / "gate"
    gate.touch()
    for _ in range(4):
        send(sender, "hold", 20 * MIB, str(gate)).get(timeout=20)


def test_a_task_that_follows_a_very_short_one_has_its_limit_too(
    running: Supervised, sender: Celery, tmp_path: Path
) -> None:
    for number in range(3):
        short = send(sender, "child")
        large = send(sender, "hold", 200 * MIB, str(tmp_path / f"never{number}"))
        short.get(timeout=20)
        with pytest.raises(TaskMemoryLimitExceeded, match=r"limit_app.hold has taken \d+ MiB"):
            large.get(timeout=30)
    assert "refused" not in running.output


@pytest.mark.browser
def test_a_browser_counts_with_its_task_and_is_closed_by_the_exception(
    running: Supervised, sender: Celery, tmp_path: Path
) -> None:
    result = send(sender, "browse", str(tmp_path / "never"))
    with pytest.raises(TaskMemoryLimitExceeded, match=r"limit_app.browse has taken \d+ MiB, with all"):
        result.get(timeout=60)
    wait_for(lambda: running.status()["browsers"]["live"] == 0, "its browser is gone", seconds=10)
    assert running.status()["pools"]["slow"]["recycles"] == {}


def test_where_memory_ends_the_task_past_its_limit_ends_and_its_neighbour_is_not_preempted(
    fresh_redis: str, sender: Celery, tmp_path: Path
) -> None:
    config, gate = tmp_path / "recyclery.toml", tmp_path / "gate"
    config.write_text(CONFIG)
    options = "--config", str(config), "--memory-limit", "640MiB"
    with supervised(*options, redis_url=fresh_redis, environment={"CELERY_APP": "limit_app"}) as running:
        running.wait_until_ready("slow")
        neighbour = send(sender, "roomy", 250 * MIB, str(gate))
        wait_for(Path(f"{gate}.begun").exists, "the neighbour holds more")
        result = send(sender, "hold_on", 400 * MIB, str(tmp_path / "never"))
        with pytest.raises(TaskMemoryLimitExceeded):
            result.get(timeout=60)
        gate.touch()
        neighbour.get(timeout=20)
        assert Path(f"{gate}.runs").read_text() == "x"
        assert "preempt" not in running.output
        assert not Path(tmp_path / "never.caught").exists()


def test_pages_that_forked_processes_share_count_once(
    running: Supervised, sender: Celery, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    forking = send(sender, "fork", 60 * MIB, 6, str(gate))
    wait_for(Path(f"{gate}.begun").exists, "it has forked")
    time.sleep(3)
    gate.touch()
    assert forking.get(timeout=20) is None


def test_a_task_may_have_a_limit_by_its_name(running: Supervised, sender: Celery, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    roomy = send(sender, "roomy", 200 * MIB, str(gate))
    wait_for(Path(f"{gate}.begun").exists, "it holds its memory")
    time.sleep(3)
    gate.touch()
    roomy.get(timeout=20)
    with pytest.raises(TaskMemoryLimitExceeded, match="may take 400 MiB"):
        send(sender, "roomy", 500 * MIB, str(tmp_path / "never")).get(timeout=60)
