"""The pool on a real worker: when children leave, who takes their place, and what they take with them."""

import functools
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery import Celery, group
from celery.concurrency import asynpool
from celery.exceptions import TimeLimitExceeded

from recyclery_worker import link
from recyclery_worker.pool.prefork import ChildPool
from support.bare_worker import BareWorker, bare_worker
from support.redis_server import count_held
from support.supervised import SUPPORT
from support.waiting import is_alive, wait_for


def run(sender: Celery, count: int, task: str = "nap", *args: object) -> list[int]:
    """Run tasks and return their results in order."""
    sent = [sender.send_task(f"sample_app.{task}", args or (0,), queue="low") for _ in range(count)]
    return [result.get(timeout=60) for result in sent]


def test_a_child_leaves_after_exactly_its_number_of_tasks(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=3) as worker:
        assert list(Counter(run(sender, 9)).values()) == [3, 3, 3]
        three = ["max_tasks"] * 3
        wait_for(lambda: [left.reason for left in worker.stat().departures] == three, "three departures")


@pytest.mark.parametrize(("most_mib", "warns"), [(40, True), (300, False)])
def test_a_child_above_max_memory_per_child_leaves_after_its_task_for_that_reason(
    sender: Celery, fresh_redis: str, capfd: pytest.CaptureFixture[str], most_mib: int, warns: bool
) -> None:
    options = ("--max-memory-per-child", str(most_mib << 10))
    with bare_worker(fresh_redis, options=options) as worker:
        first = run(sender, 1, "leave_memory", 300 << 20)
        assert len({*first, *run(sender, 2)}) == (3 if warns else 2)
        wait_for(lambda: len(worker.stat().departures) == (3 if warns else 1), "they have left")
        assert {left.reason for left in worker.stat().departures} == {"max_memory"}
    told = capfd.readouterr().err
    assert told.count(f"max-memory-per-child is {most_mib} MiB: each will leave after one task") == warns


@pytest.mark.slow
def test_a_limit_of_one_gives_every_task_a_child_of_its_own(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=1):
        assert len(set(run(sender, 6))) == 6


def test_the_successor_is_up_while_the_last_task_still_runs(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        run(sender, 1)
        last = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "the last task runs")
        assert len(worker.pids()) == 2
        gate.touch()
        old = last.get(timeout=10)
        assert run(sender, 1) != [old]
        wait_for(lambda: old not in worker.pids(), "the old one has left")


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["start", "write", "read"])
def test_a_worker_told_to_quit_amid_its_pools_work_ends_at_once_and_gives_back_only_what_is_not_done(
    sender: Celery, fresh_redis: str, moment: str
) -> None:
    with bare_worker(fresh_redis, max_tasks=2, app="quit_app", environment={"QUIT_AT": moment}) as worker:
        sent = sender.send_task("sample_app.nap", (0,), queue="low")
        cut_off = worker.process.wait(20)
    assert cut_off == redis.Redis.from_url(fresh_redis).llen("low")
    assert sent.ready() != cut_off


@pytest.mark.slow
def test_a_standby_child_gets_no_task_before_its_predecessor_has_left(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        for _ in range(6):
            (first,) = run(sender, 1)
            wait_for(lambda: len(worker.pids()) == 2, "the successor is up")
            time.sleep(0.1)  # It may be up and not yet have said so.
            assert run(sender, 1) == [first]


def test_a_recycle_lets_in_no_task_before_its_turn(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    gates = [tmp_path / name for name in ("first", "second", "revoked")]
    with bare_worker(fresh_redis, max_tasks=1, options=("--prefetch-multiplier", "4")) as worker:
        first, second, revoked = (
            sender.send_task("sample_app.nap_until", (str(gate),), queue="low") for gate in gates
        )
        node = worker.stat().node
        inspect: Any = sender.control.inspect([node], timeout=10)
        wait_for(lambda: inspect.query_task(revoked.id)[node], "all three are received")
        gates[0].touch()
        # Upstream gives the first one's slot back at its result, and again when its child has gone.
        wait_for(lambda: first.get(timeout=10) not in worker.pids(), "its child has gone")
        wait_for(Path(f"{gates[1]}.begun").exists, "the second runs")
        sender.control.revoke(revoked.id, reply=True, destination=[node], timeout=10)
        gates[1].touch()
        second.get(timeout=10)
        # A task that was let in is past the place where the worker heeds that it is revoked.
        gates[2].touch()
        run(sender, 1)
        assert not Path(f"{gates[2]}.begun").exists()


def test_a_task_that_a_child_has_been_given_runs_once_though_the_worker_is_stopped_at_that_moment(
    sender: Celery, fresh_redis: str
) -> None:
    with bare_worker(fresh_redis) as worker, redis.Redis.from_url(fresh_redis) as client:
        run(sender, 1)
        wait_for(lambda: count_held(client) == 0, "the worker knows that it is done")
        (child,) = worker.pids()
        os.kill(child, signal.SIGSTOP)
        try:
            sent = sender.send_task("sample_app.count_run", (7,), queue="low")
            wait_for(lambda: count_held(client) == 1, "it is received")
            time.sleep(0.3)  # No word comes of its being written to the child,
            worker.process.terminate()
            time.sleep(
                2
            )  # nor of the moment at which the worker gives tasks back: its loop sleeps for a second.
        finally:
            os.kill(child, signal.SIGCONT)
        assert sent.get(timeout=10) == 7
        assert worker.process.wait(10) == 0
    with bare_worker(fresh_redis):
        run(sender, 1)
        assert sender.send_task("sample_app.runs_counted", queue="low").get(timeout=30) == 1


def test_a_lower_limit_holds_for_a_child_that_is_already_there(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis) as worker:
        (first,) = set(run(sender, 3))
        assert worker.ask(link.SetMaxTasksRequest(max_tasks=5)) == link.RequestDone()
        assert Counter(run(sender, 7))[first] == 2


@pytest.mark.slow
def test_a_child_past_a_new_limit_leaves_at_once(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis) as worker:
        (first,) = set(run(sender, 5))
        worker.ask(link.SetMaxTasksRequest(max_tasks=2))
        wait_for(lambda: not is_alive(first), "it has left", seconds=5)


@pytest.mark.slow
def test_a_higher_limit_keeps_a_child_that_is_already_there(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=4) as worker:
        (first,) = set(run(sender, 2))
        worker.ask(link.SetMaxTasksRequest(max_tasks=8))
        assert set(run(sender, 6)) == {first}


@pytest.mark.slow
def test_with_several_children_limits_are_spread(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, concurrency=3, max_tasks=20):
        lives = list(Counter(run(sender, 400)).values())
        assert max(lives) <= 20
        assert len({life for life in lives if life >= 14}) > 1


def test_concurrency_goes_up_and_down_while_tasks_run(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"

    def begun() -> int:
        return len(list(tmp_path.glob("gate*.begun")))

    with bare_worker(fresh_redis) as worker:
        sent = [sender.send_task("sample_app.nap_until", (f"{gate}{n}",), queue="low") for n in range(4)]
        wait_for(lambda: begun() == 1, "one runs")
        assert worker.ask(link.SetConcurrencyRequest(concurrency=3)) == link.RequestDone()
        wait_for(lambda: begun() == 3, "three run")
        assert worker.ask(link.SetConcurrencyRequest(concurrency=1)) == link.RequestDone()
        for number in range(4):
            Path(f"{gate}{number}").touch()
        assert all(result.get(timeout=10) for result in sent)
        wait_for(lambda: len(worker.pids()) == 1, "one child is left")
        assert worker.stat().concurrency == 1


def has_another(worker: BareWorker, former: int) -> bool:
    """Tell whether the one child is not the former one."""
    return former not in (pids := worker.pids()) and len(pids) == 1


def test_a_killed_child_gives_its_task_slot_back(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis) as worker:
        for _ in range(3):
            lost = sender.send_task("sample_app.nap", (600,), queue="low")
            child = wait_for(lambda: next((c for c in worker.stat().children if c.task_id), None), "a task")
            sender.control.revoke(lost.id)
            os.kill(child.pid, signal.SIGKILL)
            wait_for(functools.partial(has_another, worker, child.pid), "another child")
        assert len(run(sender, 3)) == 3


@pytest.mark.parametrize(
    ("accepted", "last_words", "put_back"), [(True, True, 0), (False, True, 0), (False, False, 1)]
)
def test_what_a_child_had_begun_is_not_put_back_when_another_child_died_a_moment_before_it(
    monkeypatch: pytest.MonkeyPatch, accepted: bool, last_words: bool, put_back: int
) -> None:
    # Only the other child has been collected and heard; this one is dead, and in the pool.
    down: list[Any] = []
    monkeypatch.setattr(asynpool.AsynPool, "on_job_process_down", lambda _, job, pid: down.append(job))
    child = SimpleNamespace(pid=5)
    job = SimpleNamespace(_accepted=accepted, _write_to=child)
    pool: Any = ChildPool.__new__(ChildPool)
    pool._pool = [child]
    pool.process_flush_queues = lambda _: setattr(job, "_accepted", last_words)
    pool.on_job_process_down(job, child.pid)
    assert len(down) == put_back


@pytest.mark.slow
def test_children_that_die_at_the_same_time_all_give_their_task_slots_back(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis, concurrency=2, max_task_deaths=1):
        for number in range(8):
            deadly = sender.send_task("sample_app.die", (str(tmp_path / f"{number}"), 99), queue="low")
        with pytest.raises(Exception, match="it is parked"):
            deadly.get(timeout=60)
        gate, runs = tmp_path / "gate", [tmp_path / "one", tmp_path / "other"]
        for each in runs:
            sender.send_task("sample_app.run_until", (str(each), str(gate)), queue="low")
        wait_for(lambda: all(each.exists() for each in runs), "both run")
        gate.touch()


KILLS_ITS_CHILD = """
import os, signal
from celery.signals import worker_ready
from sample_app import app

@worker_ready.connect
def kill(sender, **_):
    # Just before Celery looks whether the children could start.
    (child,) = sender.pool._pool._pool
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
"""


def test_a_child_that_is_killed_as_its_worker_starts_is_replaced(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    (tmp_path / "kills_its_child.py").write_text(KILLS_ITS_CHILD)
    environment = {"PYTHONPATH": f"{tmp_path}:{SUPPORT}"}
    with bare_worker(fresh_redis, app="kills_its_child", environment=environment) as worker:
        assert len(run(sender, 1)) == 1
        assert worker.process.poll() is None


@pytest.mark.slow
def test_a_child_that_cannot_be_started_costs_no_result_and_is_started_later(
    sender: Celery, fresh_redis: str
) -> None:
    with bare_worker(fresh_redis, max_tasks=2, app="forkless_app") as worker:
        # The first child's successor and the two tries after it fail.
        assert len(run(sender, 2)) == 2
        assert len(run(sender, 4)) == 4
        wait_for(lambda: worker.stat().departures, "children leave as ever")


@pytest.mark.slow
def test_a_task_past_its_hard_time_limit_costs_no_slot(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, options=("--time-limit", "1")):
        with pytest.raises(TimeLimitExceeded):
            sender.send_task("sample_app.nap", (600,), queue="low").get(timeout=20)
        assert len(run(sender, 3)) == 3


@pytest.mark.parametrize(
    "way",
    [
        "max_tasks",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("retire", "warm stop", "hard limit")),
    ],
)
def test_what_a_child_started_goes_with_it(sender: Celery, fresh_redis: str, way: str) -> None:
    limit = 1 if way == "max_tasks" else 1000
    with bare_worker(fresh_redis, max_tasks=limit, options=("--time-limit", "2")) as worker:
        left_by = sender.send_task("sample_app.leave_process", ("/bin/sleep",), queue="low")
        child, left = left_by.get(timeout=20)
        if way == "retire":
            assert worker.ask(link.RetireRequest(pid=child)) == link.RequestDone()
        elif way == "warm stop":
            worker.process.terminate()
        elif way == "hard limit":
            sender.send_task("sample_app.nap", (600,), queue="low")
        wait_for(lambda: not is_alive(left), f"what it started is gone after {way}", seconds=8)


@pytest.mark.parametrize(
    "concurrency", [pytest.param(1, marks=pytest.mark.slow), 3, pytest.param(8, marks=pytest.mark.slow)]
)
def test_retirements_and_new_limits_all_along_run_every_task_exactly_once(
    sender: Celery, fresh_redis: str, concurrency: int
) -> None:
    chance = random.Random(concurrency)
    batch = int(os.environ.get("RECYCLERY_TORTURE_TASKS", "200"))
    sent: list[Any] = []

    def send() -> None:
        numbers = range(len(sent) * batch, (len(sent) + 1) * batch)
        tasks = (sender.signature("sample_app.count_run", (number,), queue="low") for number in numbers)
        sent.append(group(tasks).apply_async())

    with bare_worker(fresh_redis, concurrency=concurrency, max_tasks=50) as worker:
        send()
        retired = 0
        # A batch may be over before a child was there to be retired: then there is another.
        while retired < 4 or not sent[-1].ready():
            if sent[-1].ready():
                send()
            retired += worker.retire_any(chance)
            if chance.random() < 0.2:
                worker.ask(link.SetMaxTasksRequest(max_tasks=chance.choice([1, 2, 5, 20, 100])))
            time.sleep(chance.uniform(0, 0.01))
        count = len(sent) * batch
        runs = Counter(number for one in sent for number in one.get(timeout=60))
        assert runs == Counter(range(count))
        assert sender.send_task("sample_app.runs_counted", queue="low").get(timeout=30) == count
