"""What Celery offers, on a real worker with our pool: it goes on working, children being replaced meanwhile."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord, group
from celery.exceptions import TaskRevokedError, TimeLimitExceeded
from celery.result import AsyncResult

from recyclery_worker import link
from support.bare_worker import BareWorker, bare_worker
from support.waiting import is_alive, wait_for


def send(sender: Celery, task: str, *args: object, **options: Any) -> "AsyncResult[Any]":
    return sender.send_task(task, args, queue="low", **options)


def run(sender: Celery, count: int = 1) -> list[int]:
    """Run tasks that return their child's pid."""
    sent = [send(sender, "sample_app.nap", 0) for _ in range(count)]
    return [result.get(timeout=30) for result in sent]


@contextmanager
def held_tasks(sender: Celery, folder: Path, count: int) -> Iterator[Callable[[], int]]:
    """Send tasks that run until the block ends, and then end well; yields what counts those that run."""
    before = set(folder.glob("*.begun"))
    gates = [folder / f"gate{time.monotonic_ns()}" for _ in range(count)]
    sent = [send(sender, "sample_app.nap_until", str(gate)) for gate in gates]
    yield lambda: len(set(folder.glob("*.begun")) - before)
    for gate in gates:
        gate.touch()
    for result in sent:
        result.get(timeout=30)


def assert_runs_at_a_time(sender: Celery, folder: Path, count: int) -> None:
    with held_tasks(sender, folder, count + 1) as running:
        wait_for(lambda: running() == count, f"{count} run at a time")
        time.sleep(0.3)  # There is no state to wait for: nothing must happen.
        assert running() == count


def notes(redis_url: str) -> list[dict[str, Any]]:
    """Return what the fit app noted."""
    with redis.Redis.from_url(redis_url) as client:
        return [json.loads(text) for text in client.lrange("fit:notes", 0, -1)]


def command(sender: Celery, worker: BareWorker, name: str, **arguments: object) -> Any:
    """Give the worker a remote control command; return its reply."""
    node = worker.stat().node
    replies: Any = sender.control.broadcast(
        name, arguments=arguments, reply=True, destination=[node], timeout=10, limit=1
    )
    (reply,) = replies
    return reply[node]


# What is heard of the worker.


def test_celery_events_report_the_worker_and_its_tasks(sender: Celery, fresh_redis: str) -> None:
    heard: list[str] = []
    with bare_worker(fresh_redis, options=("-E",)), sender.connection_for_read() as connection:

        def hear(event: dict[str, Any]) -> None:
            heard.append(event["type"])
            if heard.count("worker-heartbeat") == 1 and "task-received" not in heard:
                send(sender, "sample_app.add", 1, 2)
            receiver.should_stop = "task-succeeded" in heard

        receiver = sender.events.Receiver(connection, handlers={"*": hear})
        receiver.capture(limit=None, timeout=20)
    assert "worker-heartbeat" in heard
    assert [kind for kind in heard if kind.startswith("task-")] == [
        "task-received",
        "task-started",
        "task-succeeded",
    ]


def test_celery_inspect_lists_the_children_and_the_running_tasks(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis, concurrency=2) as worker, held_tasks(sender, tmp_path, 1) as running:
        wait_for(lambda: running() == 1, "it runs")
        node = worker.stat().node
        inspect: Any = sender.control.inspect(destination=[node], timeout=10)
        assert inspect.ping() == {node: {"ok": "pong"}}
        pool = inspect.stats()[node]["pool"]
        assert sorted(pool["processes"]) == sorted(worker.pids())
        assert pool["max-concurrency"] == 2
        (task,) = inspect.active()[node]
        assert task["name"] == "sample_app.nap_until"
        assert task["worker_pid"] in worker.pids()


# What ends a task.


@pytest.mark.slow
def test_a_task_past_its_soft_limit_cleans_up_and_its_child_lives_on(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis, app="fit_app"):
        child = send(sender, "fit_app.outstay", str(tmp_path / "clean"), soft_time_limit=1).get(timeout=20)
        assert (tmp_path / "clean").exists()
        assert send(sender, "fit_app.child").get(timeout=20) == child


def test_a_task_past_its_own_hard_limit_takes_its_child_along_and_the_next_run(
    sender: Celery, fresh_redis: str
) -> None:
    with bare_worker(fresh_redis):
        (child,) = run(sender)
        with pytest.raises(TimeLimitExceeded):
            send(sender, "sample_app.nap", 600, time_limit=1).get(timeout=20)
        assert child not in run(sender, 3)
        assert not is_alive(child)


@pytest.mark.parametrize("way", ["SIGTERM", pytest.param("SIGKILL", marks=pytest.mark.slow)])
def test_a_revoked_task_that_runs_is_ended_and_as_many_run_at_a_time_as_before(
    sender: Celery, fresh_redis: str, tmp_path: Path, way: str
) -> None:
    with bare_worker(fresh_redis, concurrency=2) as worker:
        lost = send(sender, "sample_app.nap_until", str(tmp_path / "never"))
        wait_for((tmp_path / "never.begun").exists, "it runs")
        sender.control.revoke(lost.id, terminate=True, signal=way)
        with pytest.raises(TaskRevokedError):
            lost.get(timeout=10)
        assert_runs_at_a_time(sender, tmp_path, 2)
        assert len(worker.pids()) == 2


def test_a_revoked_task_that_has_not_begun_never_runs(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    with bare_worker(fresh_redis) as worker:
        with held_tasks(sender, tmp_path, 1) as running:
            wait_for(lambda: running() == 1, "the one before runs")
            revoked = send(sender, "sample_app.nap_until", str(tmp_path / "revoked"))
            command(sender, worker, "revoke", task_id=revoked.id)
        with pytest.raises(TaskRevokedError):
            revoked.get(timeout=10)
        run(sender)
        assert not (tmp_path / "revoked.begun").exists()


# When and how often tasks run.


def test_tasks_with_a_countdown_run_after_it_while_children_are_recycled(
    sender: Celery, fresh_redis: str
) -> None:
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        begun = time.monotonic()
        run(sender, 6)
        # Long enough for the like of it, on a busy machine too.
        countdown = 1 + 3 * (time.monotonic() - begun)
        due = time.time() + countdown
        later = [send(sender, "sample_app.clock", countdown=countdown) for _ in range(3)]
        run(sender, 6)
        assert len(worker.stat().departures) >= 2
        assert time.time() < due
        assert min(result.get(timeout=60) for result in later) >= due


def test_a_chord_is_completed_by_children_of_one_task_each(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, concurrency=2, max_tasks=1):
        header = [sender.signature("sample_app.add", (n, n), queue="low") for n in range(6)]
        body = sender.signature("sample_app.total", queue="low")
        assert chord(header, body).apply_async().get(timeout=30) == 30


@pytest.mark.slow
def test_a_task_is_tried_again_in_another_child(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=1, app="fit_app"):
        assert send(sender, "fit_app.persist", 3).get(timeout=30) == 3
        assert len({noted["pid"] for noted in notes(fresh_redis) if noted["event"] == "try"}) == 4


@pytest.mark.slow
def test_a_rate_limit_holds_and_can_be_changed(sender: Celery, fresh_redis: str) -> None:
    def seconds_taken(count: int) -> float:
        sent = [send(sender, "fit_app.rated") for _ in range(count)]
        times: list[float] = [result.get(timeout=30) for result in sent]
        return max(times) - min(times)

    with bare_worker(fresh_redis, concurrency=2, app="fit_app") as worker:
        assert seconds_taken(6) > 0.8
        reply = command(sender, worker, "rate_limit", task_name="fit_app.rated", rate_limit="200/s")
        assert reply == {"ok": "new rate limit set successfully"}
        assert seconds_taken(30) < 4


@pytest.mark.slow
def test_a_task_whose_child_is_killed_is_run_again(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        lost = send(sender, "sample_app.nap_until", str(tmp_path / "gate"))
        wait_for((tmp_path / "gate.begun").exists, "it runs")
        (child,) = {child.pid for child in worker.stat().children if child.task_id}
        os.kill(child, signal.SIGKILL)
        wait_for(lambda: child not in worker.pids(), "it is gone")
        (tmp_path / "gate").touch()
        assert lost.get(timeout=20) != child


@pytest.mark.parametrize("optimization", [pytest.param("fair", marks=pytest.mark.slow), "default"])
def test_retirements_lose_nothing_of_what_was_prefetched(
    sender: Celery, fresh_redis: str, optimization: str
) -> None:
    chance = random.Random(optimization)
    options = ("-O", optimization, "--prefetch-multiplier", "4")
    with bare_worker(fresh_redis, concurrency=2, max_tasks=10, options=options) as worker:
        sent = group(
            sender.signature("sample_app.count_run", (number,), queue="low") for number in range(100)
        ).apply_async()
        retired = 0
        while not sent.ready():
            retired += worker.retire_any(chance)
            time.sleep(chance.uniform(0, 0.01))
        assert retired > 3
        assert Counter(sent.get(timeout=30)) == Counter(range(100))
        assert send(sender, "sample_app.runs_counted").get(timeout=10) == 100


# What the user's own code hooks into.


def test_the_users_handlers_run_in_the_child_which_leads_its_session(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, max_tasks=2, app="fit_app"):
        child = send(sender, "fit_app.child").get(timeout=20)
        send(sender, "fit_app.child").get(timeout=20)

        def noted() -> list[str]:
            return [note["event"] for note in notes(fresh_redis) if note["pid"] == child]

        wait_for(lambda: "shutdown" in noted(), "its end")
        assert noted() == ["init", "prerun", "postrun", "prerun", "postrun", "shutdown"]
        assert all(note["leads"] for note in notes(fresh_redis) if note["event"] == "init")


@pytest.mark.slow
def test_a_task_class_and_a_request_class_of_the_users_are_told(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, app="fit_app") as worker:
        child = send(sender, "fit_app.custom", 0).get(timeout=20)
        with pytest.raises(TimeLimitExceeded):
            send(sender, "fit_app.custom", 600, time_limit=1).get(timeout=20)
        in_child = [("task before_start", child), ("task on_success", child), ("task before_start", child)]
        in_main = [
            (f"request {told}", worker.process.pid) for told in ("accepted", "accepted", "timeout", "failure")
        ]

        def noted() -> Counter[tuple[str, int]]:
            told = [(note["event"], note["pid"]) for note in notes(fresh_redis)]
            return Counter(note for note in told if note[0].startswith(("request", "task")))

        wait_for(lambda: noted() == Counter([*in_child, *in_main]), "each has been told, where it should")


EAGER = """
import os, sys
session = os.getsid(0)
from celery import Celery
import recyclery_worker
app = Celery("eager")
app.conf.task_always_eager = True

@app.task
def where():
    return os.getpid(), os.getsid(0)

assert where.delay().get() == (os.getpid(), session)
assert "RECYCLERY_CHILD" not in os.environ
assert os.listdir(os.environ["RECYCLERY_RUNTIME_DIR"]) == []
print("done")
"""


def test_an_eager_task_of_a_producer_is_left_alone(tmp_path: Path) -> None:
    names = {"RECYCLERY_POOL": "slow", "RECYCLERY_SLOT": "slow", "RECYCLERY_RUN": "run"}
    done = subprocess.run(
        [sys.executable, "-c", EAGER],
        env={
            **os.environ,
            **names,
            "RECYCLERY_RUNTIME_DIR": str(tmp_path),
            "CELERY_CUSTOM_WORKER_POOL": "recyclery_worker.pool:TaskPool",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("done\n", "")


# What changes the pool from afar.


@pytest.mark.slow
def test_after_a_pool_restart_new_children_run_tasks_and_retire(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, concurrency=2, app="fit_app") as worker:
        before = set(worker.pids())
        assert command(sender, worker, "pool_restart") == {"ok": "reload started"}

        def all_are_new() -> bool:
            send(sender, "fit_app.child").get(timeout=20)  # Children look up when they have had a task.
            return not before & set(worker.pids())

        wait_for(all_are_new, "all children are new")
        wait_for(lambda: len(worker.pids()) == 2, "as many as before")
        retired = worker.pids()[0]
        wait_for(lambda: worker.ask(link.RetireRequest(pid=retired)) == link.RequestDone(), "one is retired")
        wait_for(lambda: retired not in worker.pids(), "it is gone")
        assert send(sender, "fit_app.child").get(timeout=20) != retired
        wait_for(lambda: len(worker.pids()) == 2, "another has come")


def assert_has_and_runs(worker: BareWorker, sender: Celery, folder: Path, count: int) -> None:
    wait_for(lambda: len(worker.pids()) == count, f"{count} children")
    assert worker.stat().concurrency == count
    assert_runs_at_a_time(sender, folder, count)


def test_pool_grow_and_pool_shrink_change_how_many_run_at_a_time(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis) as worker:
        assert command(sender, worker, "pool_grow", n=2) == {"ok": "pool will grow"}
        assert_has_and_runs(worker, sender, tmp_path, 3)
        assert command(sender, worker, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert_has_and_runs(worker, sender, tmp_path, 2)


@pytest.mark.slow
def test_autoscale_is_off_and_only_the_governor_sets_the_concurrency(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis, concurrency=3, options=("--autoscale=3,1",)) as worker:
        # Under Celery's own autoscaler this is refused.
        assert command(sender, worker, "pool_shrink", n=1) == {"ok": "pool will shrink"}
        assert_has_and_runs(worker, sender, tmp_path, 2)
        assert worker.ask(link.SetConcurrencyRequest(concurrency=1)) == link.RequestDone()
        assert_has_and_runs(worker, sender, tmp_path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_governors_concurrency_replaces_that_of_remote_control(
    sender: Celery, fresh_redis: str, tmp_path: Path, concurrency: int
) -> None:
    with bare_worker(fresh_redis) as worker:
        command(sender, worker, "pool_grow", n=2)
        assert worker.ask(link.SetConcurrencyRequest(concurrency=concurrency)) == link.RequestDone()
        assert_has_and_runs(worker, sender, tmp_path, concurrency)


# The worker's own end.


def is_silent(worker: BareWorker) -> bool:
    try:
        worker.stat()
    except OSError:
        return True
    return False


def test_a_warm_stop_waits_for_the_task_and_not_for_the_standby_child(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        run(sender)
        with held_tasks(sender, tmp_path, 1) as running:
            wait_for(lambda: running() == 1 and len(worker.pids()) == 2, "it runs, another stands by")
            children = worker.pids()
            worker.process.terminate()
            wait_for(lambda: is_silent(worker), "it is stopping")
            assert running() == 1
        assert worker.process.wait(20) == 0
        assert not any(map(is_alive, children))


@pytest.mark.slow
def test_a_cold_stop_ends_soon_and_leaves_no_child(sender: Celery, fresh_redis: str, tmp_path: Path) -> None:
    with bare_worker(fresh_redis, max_tasks=2) as worker:
        run(sender)
        send(sender, "sample_app.nap_until", str(tmp_path / "never"))
        wait_for((tmp_path / "never.begun").exists, "it runs")
        wait_for(lambda: len(worker.pids()) == 2, "another stands by")
        children = worker.pids()
        worker.process.send_signal(signal.SIGQUIT)
        worker.process.wait(10)
        assert not any(map(is_alive, children))
