"""The governor over real workers: what it finds, kills, retires and tells."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from support.redis_server import empty, redis_server
from support.sending import sending_to
from support.supervised import Supervised, supervised
from support.waiting import is_alive, wait_for


@pytest.fixture(scope="module")
def slow(redis_url: str) -> Iterator[Supervised]:
    """A supervisor with the slow pool up, shared: a test leaves it as it found it."""
    empty(redis_url)
    with supervised("--pool", "slow", redis_url=redis_url) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("slow entered RUNNING state")
        yield running


@pytest.fixture
def apart(fresh_redis: str) -> str:
    """Another database of the server, for a supervisor of the test's own: the shared one takes tasks too."""
    return fresh_redis.removesuffix("/0") + "/5"


@pytest.fixture
def sender_apart(apart: str) -> Iterator[Celery]:
    """A producer for the test's own supervisor."""
    with sending_to(apart) as app:
        yield app


def leave(sender: Celery, program: str) -> tuple[int, int]:
    """Have a task leave a program running; return the pids of the pool child and of the program."""
    child, left = sender.send_task("sample_app.leave_process", (program,), queue="low").get(timeout=30)
    return child, left


def test_a_browser_that_a_finished_task_left_is_killed(
    slow: Supervised, sender: Celery, false_browser: str
) -> None:
    child, left = leave(sender, false_browser)
    wait_for(lambda: not is_alive(left), "the browser is gone", seconds=5)
    slow.wait_for_line(f"reap leftovers of slow/{child}: killed chromium")
    assert is_alive(child)


def test_the_killed_browser_is_collected_by_its_parent_which_goes_on(
    slow: Supervised, sender: Celery, false_browser: str
) -> None:
    before = slow.status()["browsers"]["reaped"]
    child, left = leave(sender, false_browser)
    wait_for(lambda: not Path(f"/proc/{left}").exists(), "not even defunct", seconds=10)
    assert sender.send_task("sample_app.nap", (0,), queue="low").get(timeout=10) == child
    counted = {"live": 0, "orphans": 0, "leftovers": 0, "defunct": 0, "reaped": before + 1}
    wait_for(lambda: counted.items() <= slow.status()["browsers"].items(), "counted")


def test_a_program_that_is_no_browser_is_left_to_its_child(
    slow: Supervised, sender: Celery, false_browser: str
) -> None:
    _, other = leave(sender, "/bin/sleep")
    _, browser = leave(sender, false_browser)
    wait_for(lambda: not is_alive(browser), "the browser is gone", seconds=5)
    assert is_alive(other)


def test_all_that_a_killed_child_started_is_killed(slow: Supervised, sender: Celery) -> None:
    child, left = leave(sender, "/bin/sleep")
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: not is_alive(left), "its session is gone", seconds=5)
    slow.wait_for_line(f"reap orphans of slow/{child}: killed ")


@pytest.mark.slow
def test_what_a_child_left_that_reached_its_limit_is_killed(apart: str, sender_apart: Celery) -> None:
    variables = {"CELERY_WORKER_NAME": "slow", "CELERY_MAX_TASKS_PER_CHILD": "1"}
    with supervised(redis_url=apart, environment=variables) as running:
        running.wait_until_ready("slow")
        _, left = leave(sender_apart, "/bin/sleep")
        wait_for(lambda: not is_alive(left), "its session is gone", seconds=5)
        wait_for(lambda: running.status()["pools"]["slow"]["recycles"] == {"max_tasks": 1}, "counted")


def test_a_governor_that_is_killed_comes_back_and_still_knows_whose_orphans_there_are(
    slow: Supervised, sender: Celery
) -> None:
    child, left = leave(sender, "/bin/sleep")
    spawned = [line for line in slow.lines if "spawned: 'governor'" in line]
    governor = int(spawned[-1].rsplit(" ", 1)[1])
    os.kill(governor, signal.SIGKILL)
    os.kill(child, signal.SIGKILL)
    slow.wait_for_line("watching slow", count=len(spawned) + 1)
    wait_for(lambda: not is_alive(left), "its session is gone", seconds=10)


def test_a_governor_that_comes_back_hears_of_the_tasks_again(slow: Supervised, sender: Celery) -> None:
    done = sender.send_task("sample_app.nap", (0.1,), queue="low").get(timeout=10)
    spawned = [line for line in slow.lines if "spawned: 'governor'" in line]
    os.kill(int(spawned[-1].rsplit(" ", 1)[1]), signal.SIGKILL)
    slow.wait_for_line("watching slow", count=len(spawned) + 1)
    assert sender.send_task("sample_app.nap", (0.1,), queue="low").get(timeout=10) == done

    def tasks_done() -> int:
        return sum(child["tasks_done"] for child in slow.status()["pools"]["slow"]["children"])

    wait_for(tasks_done, "it is told of the child's tasks")


def test_a_strangers_browser_is_never_touched(slow: Supervised, sender: Celery, false_browser: str) -> None:
    with subprocess.Popen([false_browser, "600"], start_new_session=True) as stranger:
        try:
            _, left = leave(sender, false_browser)
            wait_for(lambda: not is_alive(left), "the task's browser is gone", seconds=5)
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_status_tells_pools_children_queues_and_what_the_governor_costs(
    slow: Supervised, sender: Celery
) -> None:
    wait_for(lambda: slow.status()["pools"]["slow"]["state"] == "running", "the governor has heard of it")

    def printed_where_nothing_waits() -> dict[str, Any] | None:
        done = subprocess.run(
            [sys.executable, "-m", "recyclery", "status", "--json"],
            env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(slow.runtime_dir)},
            capture_output=True,
            check=True,
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document if document["pools"]["slow"]["queue_depth"] == 0 else None

    # A worker reports every other second what waits: it may still be a task of the test before.
    status = wait_for(printed_where_nothing_waits, "a status with an empty queue")
    assert set(status) == {"container", "pools", "browsers", "tasks", "governor", "recent"}
    pool = status["pools"]["slow"]
    assert (pool["state"], pool["node"], pool["queue_depth"]) == ("running", f"slow@{os.uname().nodename}", 0)
    (child,) = pool["children"]
    assert child["python_bytes"] > 5 << 20
    assert child["pss_bytes"] == child["python_bytes"] + child["browser_bytes"] + child["other_bytes"]
    assert status["governor"]["pss_bytes"] > 5 << 20
    assert status["container"]["limit_bytes"] > 0


def test_a_task_that_runs_is_in_the_status(slow: Supervised, sender: Celery, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    wait_for(
        lambda: slow.status()["pools"]["slow"]["children"][0]["task"] == "sample_app.nap_until", "its task"
    )
    gate.touch()
    result.get(timeout=10)


def test_queue_depth_counts_what_waits(slow: Supervised, sender: Celery, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    results = [sender.send_task("sample_app.nap_until", (str(gate),), queue="low") for _ in range(5)]
    # One runs, and with late acknowledgement one more is held ready at most.
    wait_for(lambda: slow.status()["pools"]["slow"]["queue_depth"] in {3, 4}, "the depth")
    gate.touch()
    for result in results:
        result.get(timeout=10)


def test_a_datagram_that_is_no_report_is_survived(slow: Supervised) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        for packet in (b"", b"\xff\xfe", b"{}", b"[" * 5000):
            sock.sendto(packet, str(slow.runtime_dir / "governor.sock"))
    slow.wait_for_line("a datagram that is no report was dropped")
    assert slow.status()["pools"]["slow"]["children"]


def test_a_command_that_cannot_be_read_gets_an_answer_that_says_so(slow: Supervised) -> None:
    for line in (b"nonsense\n", b'{"command":"fly"}\n', b'{"command":1}\n', b"\n"):
        with socket.socket(socket.AF_UNIX) as control:
            control.settimeout(10)
            control.connect(str(slow.runtime_dir / "control.sock"))
            control.sendall(line)
            assert b'"error"' in control.makefile("rb").readline()


def test_sockets_are_for_their_owner_alone(slow: Supervised) -> None:
    sockets = sorted(path for path in slow.runtime_dir.iterdir() if path.is_socket())
    assert [path.name for path in sockets] == [
        "control.sock", "governor.sock", "supervisor.sock", "worker-slow.sock",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in sockets} == {0o600}


def test_a_child_past_its_budget_is_retired_before_the_next_task(apart: str, sender_apart: Celery) -> None:
    with supervised("--pool", "slow", "--memory-limit", "640MiB", redis_url=apart) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("limit 640 MiB from a stated budget")
        first = sender_apart.send_task("sample_app.leave_memory", (200 << 20,), queue="low").get(timeout=10)
        second = sender_apart.send_task("sample_app.leave_memory", (200 << 20,), queue="low").get(timeout=10)
        running.wait_for_line(f"retire slow/{first}")
        wait_for(lambda: not is_alive(first), "it has left", seconds=10)
        wait_for(lambda: running.status()["pools"]["slow"]["recycles"] == {"budget": 1}, "counted")
        assert second == first


def test_above_the_hard_level_the_child_is_killed_and_its_task_runs_again(
    apart: str, sender_apart: Celery, tmp_path: Path
) -> None:
    with supervised("--pool", "slow", "--memory-limit", "256MiB", redis_url=apart) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("limit 256 MiB from a stated budget")
        once = tmp_path / "once"
        result = sender_apart.send_task("sample_app.grow_once", (400 << 20, str(once)), queue="low")
        running.wait_for_line("preempt slow/")
        assert result.get(timeout=30) == 2
        wait_for(lambda: running.status()["pools"]["slow"]["recycles"] == {"preempt": 1}, "counted")


def test_status_without_a_supervisor_says_where_it_looked() -> None:
    import subprocess
    import sys

    with tempfile.TemporaryDirectory() as runtime_dir:
        done = subprocess.run(
            [sys.executable, "-m", "recyclery", "status"],
            env={**os.environ, "RECYCLERY_RUNTIME_DIR": runtime_dir},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert f"no supervisor answers on {runtime_dir}/control.sock" in done.stderr


@pytest.mark.slow
def test_a_worker_that_is_silent_for_its_broker_is_told_from_one_that_hangs() -> None:
    with redis_server() as url, supervised("--pool", "slow", redis_url=url) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("slow entered RUNNING state")
        main = running.status()["pools"]["slow"]["pid"]
        os.kill(main, signal.SIGSTOP)
        try:
            running.wait_for_line("slow has not answered for 10 s: not answering")
            wait_for(lambda: running.status()["pools"]["slow"]["state"] == "not answering", "it is told")
        finally:
            os.kill(main, signal.SIGCONT)
        running.wait_for_line("slow answers again")
        wait_for(lambda: running.status()["pools"]["slow"]["state"] == "running", "it is running")
        stop_redis(url)
        running.wait_for_line("slow has not answered for 10 s: waiting for broker", seconds=60)
        assert running.status()["pools"]["slow"]["pid"] == main


def stop_redis(url: str) -> None:
    """End the server, which then refuses connections."""
    import redis

    redis.Redis.from_url(url).shutdown(nosave=True)


def change(running: Supervised, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `recyclery set` against a supervisor."""
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "set", *words],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


def limit_of(running: Supervised) -> int:
    return int(running.status()["pools"]["slow"]["max_tasks_per_child"])


def test_set_changes_the_running_worker(slow: Supervised) -> None:
    wait_for(lambda: limit_of(slow) == 10, "the worker has answered")
    done = change(slow, "slow", "max_tasks_per_child=4")
    assert (done.returncode, done.stdout) == (
        0,
        "slow: max_tasks_per_child = 4, until the supervisor's next start\n",
    )
    wait_for(lambda: limit_of(slow) == 4, "it is in force")
    slow.wait_for_line("tune slow to 4 tasks per child: the settings say 4; in force")
    change(slow, "slow", "max_tasks_per_child=10")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("slow", "concurrency=0"), 78, "slow concurrency is 0 (by set): it must be a whole number"),
        (("slow", "queues=low"), 78, "slow queues is taken from the file, by a HUP"),
        (
            ("nobody", "concurrency=1"),
            78,
            "'nobody' is no pool: there are slow, memory, browsers, alerts, history",
        ),
        (("slow", "concurrency"), 2, "'concurrency' is not of the form key=value"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused_with_the_reason(
    slow: Supervised, words: tuple[str, ...], code: int, said: str
) -> None:
    done = change(slow, *words)
    assert (done.returncode, said in done.stderr) == (code, True)


@pytest.mark.slow
def test_hup_takes_over_what_the_file_changed_and_says_what_must_wait(apart: str, tmp_path: Path) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text("[pools.slow]\nmax_tasks_per_child = 10\n")
    with supervised("--config", str(config), redis_url=apart) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: limit_of(running) == 10, "the worker has answered")
        config.write_text("grace_seconds = 9\n[pools.slow]\nmax_tasks_per_child = 3\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_line("slow max_tasks_per_child is 3, was 10")
        running.wait_for_line("HUP: at the next start: grace_seconds is 9.0")
        wait_for(lambda: limit_of(running) == 3, "it is in force")
        change(running, "slow", "max_tasks_per_child=7")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_line("HUP: slow max_tasks_per_child is 3, was 7")
        config.write_text("[pools.slow]\nmax_tasks_per_child = none\n")
        running.process.send_signal(signal.SIGHUP)
        running.wait_for_line("HUP: nothing is changed: config file")
        wait_for(lambda: limit_of(running) == 3, "the file's number holds")


def tasks_running(running: Supervised) -> int:
    """Count the children that have a task."""
    return sum(child["task"] is not None for child in running.status()["pools"]["slow"]["children"])


@pytest.mark.slow
def test_a_pool_with_a_range_runs_more_tasks_at_a_time_when_they_wait(
    apart: str, sender_apart: Celery, tmp_path: Path
) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text("[pools.slow]\nconcurrency = { min = 1, max = 2 }\n")
    with supervised("--config", str(config), "--memory-limit", "2GiB", redis_url=apart) as running:
        running.wait_until_ready("slow")
        # It is done in a moment in which the machine has CPU to spare.
        for _ in range(60):
            sender_apart.send_task("sample_app.nap", (2,), queue="low")
        try:
            running.wait_for_line("scale slow to 2 at a time: ", seconds=60)
        except AssertionError:
            if os.getloadavg()[0] > (os.cpu_count() or 1):
                pytest.skip("this machine has had no CPU to spare for a second task")
            raise
        wait_for(lambda: tasks_running(running) == 2, "two tasks at a time")


def reap(running: Supervised, *words: str) -> "subprocess.CompletedProcess[str]":
    """Run `recyclery reap` against a supervisor."""
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "reap", *words],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_reap_says_when_there_is_nothing_that_no_task_owns(slow: Supervised) -> None:
    done = reap(slow)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "nothing to reap: browsers in use: 0")


def test_reap_without_a_supervisor_says_where_it_looked(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", "reap"],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"no supervisor answers on {tmp_path}/control.sock" in done.stderr


def test_reap_leaves_strangers_and_says_so(slow: Supervised, false_browser: str) -> None:
    with subprocess.Popen([false_browser, "600"], start_new_session=True) as stranger:
        try:
            wait_for(lambda: slow.status()["browsers"]["strangers"], "it is counted")
            done = reap(slow)
            assert "left alone, as no pool started them: " in done.stdout
            assert stranger.poll() is None
        finally:
            stranger.kill()


@pytest.fixture
def alone() -> tuple[str, ...]:
    """A command that gives the supervisor processes of its own to see: strangers are killed in there."""
    wrapper = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    try:
        subprocess.run([*wrapper, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no PID namespace can be made here")
    return wrapper


@pytest.mark.slow
def test_reap_kills_strangers_when_told_to_and_no_task(
    alone: tuple[str, ...], apart: str, sender_apart: Celery, false_browser: str, tmp_path: Path
) -> None:
    # Beside the supervisor, in its namespace: a browser that no pool started.
    shell = ("sh", "-c", f'setsid {false_browser} 600 & exec "$@"', "sh")
    with supervised("--pool", "slow", redis_url=apart, wrapper=(*alone, *shell)) as running:
        running.wait_until_ready("slow")
        running.wait_for_line("1 browser that no pool started: chromium ")
        gate = tmp_path / "gate"
        result = sender_apart.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "a task runs")
        assert running.status()["browsers"]["strangers"] == 1
        assert "left alone, as no pool started them: 1" in reap(running).stdout
        done = reap(running, "--strangers")
        assert done.stdout.startswith(
            "reap strangers: killed chromium; asked to, though no pool started them; all gone"
        )
        wait_for(lambda: running.status()["browsers"]["strangers"] == 0, "it is gone")
        gate.touch()
        result.get(timeout=10)


def test_a_browser_at_which_a_task_hangs_is_killed_and_the_task_goes_on(
    apart: str, sender_apart: Celery, false_browser: str, tmp_path: Path
) -> None:
    config = tmp_path / "recyclery.toml"
    config.write_text("[browsers]\nsilent_seconds = 2\nmax_age_seconds = 1\n")
    with supervised("--pool", "slow", "--config", str(config), redis_url=apart) as running:
        running.wait_until_ready("slow")
        code = sender_apart.send_task("sample_app.wait_for_process", (false_browser,), queue="low")
        running.wait_for_line("sample_app.wait_for_process has done nothing for ")
        assert code.get(timeout=10) == -signal.SIGKILL


@pytest.mark.slow
def test_when_a_browser_is_a_runaway_is_changed_while_its_task_hangs(
    apart: str, sender_apart: Celery, false_browser: str
) -> None:
    with supervised("--pool", "slow", redis_url=apart) as running:
        running.wait_until_ready("slow")
        code = sender_apart.send_task("sample_app.wait_for_process", (false_browser,), queue="low")
        wait_for(lambda: running.status()["browsers"]["in_use"] == 1, "it is seen")
        assert running.status()["browsers"]["runaway"] == 0
        assert change(running, "browsers", "silent_seconds=2", "max_age_seconds=1").returncode == 0
        running.wait_for_line("reap runaway of slow/")
        assert code.get(timeout=10) == -signal.SIGKILL
