"""Under the whole supervisor: a live limit, the governor's figures in the history, the count in the status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from celery import Celery

from recyclery_demo.cage import make_cgroup
from recyclery_worker.parking.records import DeadLetterStore
from support.parked import run_parked
from support.supervised import Supervised, supervised
from support.waiting import wait_for


def set_value(running: Supervised, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "recyclery", "set", *words],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)},
        check=True,
        capture_output=True,
    )


def test_a_preempted_task_is_parked_at_the_limit_set_live_with_what_the_governor_saw(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    with supervised("--pool", "slow", "--memory-limit", "256MiB", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        set_value(running, "slow", "max_task_deaths=1")
        once = tmp_path / "once"
        sent = sender.send_task("sample_app.grow_once", (400 << 20, str(once)), queue="low")
        running.wait_for_line("preempt slow/")
        running.wait_for_line("parked sample_app.grow_once")
        wait_for(lambda: running.status()["tasks"]["parked"] == 1, "it is counted")
        wait_for(lambda: lot.list_deaths(sent.id)[0].tree_bytes, "the governor has told what it saw")
        (death,) = lot.list_deaths(sent.id)
        assert death.how.startswith("preempted by the supervisor")
        assert (death.tree_bytes or 0) > 100 << 20
        listed = json.loads(run_parked(fresh_redis, "list", "--json").stdout)["parked"]
        assert [task["id"] for task in listed] == [sent.id]
        assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3


@pytest.mark.cgroup
def test_a_task_that_takes_memory_until_it_is_killed_is_parked_and_the_others_of_its_queue_go_on(
    sender: Celery, fresh_redis: str, lot: DeadLetterStore
) -> None:
    cgroup = make_cgroup(400 << 20)
    join = ("/bin/sh", "-c", f'echo $$ > {cgroup.path}/cgroup.procs; exec "$@"', "sh")
    try:
        with supervised("--pool", "slow", redis_url=fresh_redis, wrapper=join) as running:
            running.wait_until_ready("slow")
            poison = sender.send_task("sample_app.leave_memory", (4 << 30,), queue="low")
            others = [sender.send_task("sample_app.add", (number, 1), queue="low") for number in range(20)]
            assert [other.get(timeout=60) for other in others] == list(range(1, 21))
            running.wait_for_line(f"parked sample_app.leave_memory[{poison.id}]", seconds=90)
            assert len(lot.list_deaths(poison.id)) == 3
            assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
            wait_for(lambda: running.status()["tasks"]["parked"] == 1, "it is counted")
    finally:
        cgroup.remove()


@pytest.mark.slow
def test_a_task_that_kills_its_worker_dies_from_the_first_time_on_and_the_other_pool_goes_on(
    sender: Celery, fresh_redis: str, tmp_path: Path, lot: DeadLetterStore
) -> None:
    path = tmp_path / "runs"
    with supervised(redis_url=fresh_redis, environment={"RECYCLERY_MAX_DEATHS": "2"}) as running:
        running.wait_until_ready("slow", "fast")
        poison = sender.send_task("sample_app.end_worker", (str(path), 99), queue="low")
        running.wait_for_line(f"parked sample_app.end_worker[{poison.id}]", seconds=90)
        assert path.stat().st_size == 3
        assert [death.how for death in lot.list_deaths(poison.id)] == ["its worker died"] * 3
        assert sum("fast@" in line and " ready" in line for line in running.lines) == 1
        running.wait_for_line("slow keeps dying")
        assert running.stop() == 0
