"""Workers whose pool is not ours: what is said at their start, and what the supervisor does with them."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import redis
from celery import Celery

from recyclery_worker import link
from support.redis_server import count_held
from support.sending import sending_to
from support.supervised import SUPPORT, ask, supervised
from support.waiting import is_alive, wait_for

HOOK = "_track_child_process"
RENAMED = {"RENAMED_HOOK": HOOK, "PYTHONPATH": f"{SUPPORT}:{SUPPORT / 'renamed_hook'}"}
ROOMIER = {**RENAMED, "RECYCLERY_MEMORY_LIMIT": "480MiB"}


def configured(folder: Path, implementation: str) -> str:
    """Write a configuration with one pool of that implementation, and return its path."""
    path = folder / "recyclery.toml"
    path.write_text(f'[pools.slow]\nqueues = ["low"]\nimplementation = "{implementation}"\nconcurrency = 1\n')
    return str(path)


def test_a_missing_hook_is_named_in_one_line_and_the_worker_runs_on(fresh_redis: str) -> None:
    apart = fresh_redis.removesuffix("/0") + "/7"
    with (
        supervised("--pool", "slow", redis_url=apart, environment=RENAMED) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        (line,) = [line for line in running.lines if "lacks" in line]
        assert f"lacks AsynPool.{HOOK}: this worker runs Celery's own pool." in line
        child = sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=20)
        assert os.getsid(child) == child
        told = ask(running, link.StatRequest())
        assert isinstance(told, link.WorkerStat)
        assert not told.retires
        to_trace = link.TraceRequest(task="sample_app.nap", runs=1, warm_up=1, address="/nowhere")
        for request in (link.RetireRequest(pid=child), to_trace):
            refused = ask(running, request)
            assert isinstance(refused, link.Refused)
            assert HOOK in refused.reason


@pytest.mark.slow
def test_with_a_missing_hook_the_worker_is_replaced_where_a_child_would_have_been_retired(
    fresh_redis: str,
) -> None:
    apart = fresh_redis.removesuffix("/0") + "/7"
    with (
        supervised("--pool", "slow", redis_url=apart, environment=ROOMIER) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        first = sender.send_task("sample_app.nap", (1,), queue="low").get(timeout=20)
        main = running.status()["pools"]["slow"]["pid"]
        # By steps: how much is left for tasks depends on what else the machine counts.
        wait_for(lambda: grow(sender) and "replace slow: child " in running.output, "too large", 60)
        assert "has not answered" not in running.output
        running.wait_for_line("slow@", count=2)
        assert sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=30) != first
        pool = wait_for(lambda: running.status()["pools"]["slow"], "its status")
        assert pool["pid"] != main
        assert pool["recycles"] == {"replace": 1}
        assert "retire slow" not in running.output


@pytest.mark.slow
def test_with_a_missing_hook_what_a_child_left_is_killed_all_the_same(
    fresh_redis: str, false_browser: str
) -> None:
    apart = fresh_redis.removesuffix("/0") + "/7"
    with (
        supervised("--pool", "slow", redis_url=apart, environment=RENAMED) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        task = sender.send_task("sample_app.leave_process", (false_browser,), queue="low")
        child, browser = task.get(timeout=20)
        wait_for(lambda: not is_alive(browser), "the leftover is gone", seconds=10)
        running.wait_for_line(f"reap leftovers of slow/{child}")
        task = sender.send_task("sample_app.leave_process", ("/bin/sleep",), queue="low")
        child, left = task.get(timeout=20)
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: not is_alive(left), "its session is gone", seconds=10)


@pytest.mark.parametrize(
    "implementation",
    ["threads", pytest.param("solo", marks=pytest.mark.slow), pytest.param("gevent", marks=pytest.mark.slow)],
)
def test_another_pool_runs_tasks_and_says_what_cannot_be_done(
    fresh_redis: str, tmp_path: Path, implementation: str
) -> None:
    if implementation == "gevent":
        pytest.importorskip("gevent")
    apart = fresh_redis.removesuffix("/0") + "/7"
    with (
        supervised("--config", configured(tmp_path, implementation), redis_url=apart) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        (line,) = [line for line in running.lines if "main process" in line]
        assert f"the {implementation if implementation != 'threads' else 'thread'} pool runs tasks" in line
        main = sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=20)
        told = ask(running, link.StatRequest())
        assert isinstance(told, link.WorkerStat)
        assert (told.pid, told.retires, told.children) == (main, False, [])
        assert isinstance(ask(running, link.SetMaxTasksRequest(max_tasks=5)), link.Refused)
        # Celery has taken over what we have set for safety: what runs is not acknowledged before it is done.
        gate = tmp_path / "gate"
        napping = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        with redis.Redis.from_url(apart) as client:
            assert count_held(client) == 1
        gate.touch()
        napping.get(timeout=20)
        # That much the governor can tell: what the main process started is the pool's.
        children = wait_for(lambda: running.status()["pools"]["slow"]["children"], "its one process")
        assert [child["pid"] for child in children] == [main]


@pytest.mark.parametrize("implementation", ["threads", pytest.param("solo", marks=pytest.mark.slow)])
def test_a_worker_of_another_pool_is_replaced_when_it_has_grown(
    fresh_redis: str, tmp_path: Path, implementation: str
) -> None:
    apart = fresh_redis.removesuffix("/0") + "/7"
    variables = {"RECYCLERY_MEMORY_LIMIT": "400MiB"}
    with (
        supervised(
            "--config", configured(tmp_path, implementation), redis_url=apart, environment=variables
        ) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        # From then on it is known what it holds without tasks.
        wait_for(lambda: running.status()["pools"]["slow"]["state"] == "running", "it has started")
        first = sender.send_task("sample_app.leave_memory", (250 << 20,), queue="low").get(timeout=20)
        running.wait_for_line("replace slow: ")
        assert wait_for(lambda: run_elsewhere(sender, first), "another worker", seconds=60)


def grow(sender: Celery) -> int:
    """Have a task leave 40 MiB, give the governor a look at it, and return the child's pid."""
    pid: int = sender.send_task("sample_app.leave_memory", (40 << 20,), queue="low").get(timeout=30)
    time.sleep(1)
    return pid


def run_elsewhere(sender: Celery, former: int) -> bool:
    """Tell whether a task now runs in another process than the former one."""
    return bool(sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=30) != former)


@pytest.mark.slow
def test_what_a_dead_worker_of_another_pool_left_is_killed(
    fresh_redis: str, tmp_path: Path, false_browser: str
) -> None:
    apart = fresh_redis.removesuffix("/0") + "/7"
    with (
        supervised("--config", configured(tmp_path, "threads"), redis_url=apart) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("slow")
        task = sender.send_task("sample_app.leave_process", (false_browser,), queue="low")
        main, browser = task.get(timeout=20)
        wait_for(lambda: running.status()["browsers"]["live"] == 1, "the governor has seen it")
        os.kill(main, signal.SIGKILL)
        wait_for(lambda: not is_alive(browser), "it is gone", seconds=10)


def test_the_self_test_names_every_part_on_this_celery() -> None:
    from recyclery_worker.compat import found, missing

    assert missing("pool") == ()
    assert {"AsynPool.on_job_ready", "AsynPool._busy_workers", "Worker.wait_for_job"} <= set(found("pool"))


def test_importing_the_pool_where_a_hook_is_missing_gives_celerys_own() -> None:
    import subprocess

    program = "from recyclery_worker.pool import TaskPool; print(TaskPool.__module__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **RENAMED},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "celery.concurrency.prefork"
