"""A real worker is replaced under a stream of tasks: by command, by a changed file, whoever dies meanwhile."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from celery import Celery

from recyclery.control.client import ask_governor
from support.redis_server import empty
from support.sending import sending_to
from support.supervised import SUPPORT, Supervised, supervised
from support.waiting import is_alive
from support.waiting import wait_for as wait_for_a_while

# A worker starts, and another one leaves: on a busy machine that takes its time.
wait_for = partial(wait_for_a_while, seconds=90)

MAX_WAITING = 50
REFUSED = "--nor-this-option"
FILE = "[pools.slow]\nconcurrency = 1\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration file of the shared supervisor."""
    path = tmp_path_factory.mktemp("handoff") / "recyclery.toml"
    path.write_text(FILE)
    return path


@pytest.fixture(scope="module")
def refused_after(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file, made by the test: from then on a worker with the option REFUSED ends at once."""
    return tmp_path_factory.mktemp("refused") / "now"


@pytest.fixture(scope="module")
def slow(redis_url: str, config: Path, refused_after: Path) -> Iterator[Supervised]:
    """A supervisor with the slow pool up, in whichever slot."""
    empty(redis_url)
    environment = {
        "PYTHONPATH": f"{SUPPORT}:{SUPPORT / 'refused_option'}",
        "REFUSED_OPTION": REFUSED,
        "REFUSED_AFTER": str(refused_after),
    }
    with supervised("--config", str(config), redis_url=redis_url, environment=environment) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        yield running


@pytest.fixture
def apart(fresh_redis: str) -> str:
    """Another database of the server, for a supervisor of the test's own: the shared one takes tasks too."""
    return fresh_redis.removesuffix("/0") + "/6"


@pytest.fixture
def sender_apart(apart: str) -> Iterator[Celery]:
    """A producer for the test's own supervisor."""
    with sending_to(apart) as app:
        yield app


def is_settled(running: Supervised) -> bool:
    """Whether the pool has one worker, which takes tasks."""
    pool = running.status()["pools"]["slow"]
    return pool["state"] == "running" and pool["node"] and not (pool["successor"] or pool["draining"])


def recycle(running: Supervised, pool: str = "slow") -> "subprocess.CompletedProcess[str]":
    """Run `recyclery recycle`."""
    return subprocess.run(
        [sys.executable, "-m", "recyclery", "recycle", pool],
        env={**os.environ, "RECYCLERY_RUNTIME_DIR": str(running.runtime_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


def count_notes(path: Path) -> int:
    """Return how many tasks have left their number."""
    return len(path.read_text().split()) if path.exists() else 0


class Stream:
    """Sends tasks that leave their number in a file, one every 20 ms while few wait, until the block ends."""

    def __init__(self, sender: Celery, path: Path) -> None:
        self.sent = 0
        self._sender, self._path = sender, path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        while not self._stopping.wait(0.02):
            if self.sent - count_notes(self._path) < MAX_WAITING:
                self._sender.send_task("sample_app.note", (str(self._path), str(self.sent), 0), queue="low")
                self.sent += 1

    def __enter__(self) -> "Stream":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


def test_under_a_stream_of_tasks_none_is_lost_or_run_twice_and_a_running_one_is_finished(
    slow: Supervised, sender: Celery, tmp_path: Path
) -> None:
    before = slow.status()["pools"]["slow"]
    gate, notes = tmp_path / "gate", tmp_path / "notes"
    running_task = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    wait_for(Path(f"{gate}.begun").exists, "a task runs")
    with Stream(sender, notes) as stream:
        done = recycle(slow)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"slow: replacing {before['slot']} (pid {before['pid']})" in done.stdout
        wait_for(lambda: notes.exists() and len(notes.read_text().split()) > 20, "the new one works")
        pool = slow.status()["pools"]["slow"]
        assert (pool["pid"] != before["pid"], pool["slot"] != before["slot"]) == (True, True)
        assert pool["node"] == f"{pool['slot']}@{os.uname().nodename}"
        assert [former["tasks"] for former in pool["draining"]] == [["sample_app.nap_until"]]
        assert "sample_app.nap_until" in {child["task"] for child in pool["children"]}
        again = recycle(slow)
        assert again.returncode == 1
        assert "its former worker still drains 1 task: sample_app.nap_until" in again.stderr
    gate.touch()
    assert running_task.get(timeout=90)
    wait_for(lambda: not is_alive(before["pid"]), "the old one has left")
    wait_for(lambda: len(notes.read_text().split()) >= stream.sent, "all have run")
    assert sorted(map(int, notes.read_text().split())) == list(range(stream.sent))
    wait_for(lambda: is_settled(slow), "one worker is left")
    assert slow.status()["pools"]["slow"]["recycles"]["replace"] == 1


def test_a_handoff_goes_on_where_the_governor_died_in_its_middle(slow: Supervised) -> None:
    before = slow.status()["pools"]["slow"]
    spawned = sum("spawned: 'slow" in line for line in slow.lines)
    ask_governor(slow.runtime_dir, "recycle", table="slow")
    slow.wait_for_line("spawned: 'slow", count=spawned + 1)
    governors = [line for line in slow.lines if "spawned: 'governor'" in line]
    os.kill(int(governors[-1].rsplit(" ", 1)[1]), signal.SIGKILL)
    slow.wait_for_line("watching ", count=len(governors) + 1)
    wait_for(lambda: not is_alive(before["pid"]), "the old one has left")
    wait_for(lambda: is_settled(slow), "one worker is left")
    assert slow.status()["pools"]["slow"]["slot"] != before["slot"]


def test_a_pool_with_other_queues_in_the_file_is_handed_over_at_a_hup(
    slow: Supervised, sender: Celery, config: Path
) -> None:
    before = slow.status()["pools"]["slow"]
    config.write_text(f'{FILE}queues = ["low", "bulk"]\n')
    slow.process.send_signal(signal.SIGHUP)
    slow.wait_for_line("slow queues is ('low', 'bulk'), was ('low',); slow gets a new worker for it")
    assert sender.send_task("sample_app.add", (1, 2), queue="bulk").get(timeout=90) == 3
    wait_for(lambda: not is_alive(before["pid"]), "the old one has left")
    wait_for(lambda: is_settled(slow), "one worker is left")
    slow.wait_for_line("replace slow: its settings have changed since its start")


@pytest.mark.slow
def test_a_successor_that_cannot_start_leaves_the_worker_that_there_is(
    slow: Supervised, sender: Celery, config: Path
) -> None:
    before = slow.status()["pools"]["slow"]
    config.write_text(f'{FILE}celery_options = ["--no-such-option"]\n')
    slow.process.send_signal(signal.SIGHUP)
    slow.wait_for_line(
        "was to take over slow and did not stay up: it ended with status 2; the old one goes on", seconds=90
    )
    done = recycle(slow)
    assert done.returncode == 1
    assert "slow was not replaced: " in done.stderr
    after = slow.status()["pools"]["slow"]
    assert (after["pid"], after["state"]) == (before["pid"], "running")
    # A worker that only died starts as it was, not as a file says that none can start with.
    os.kill(before["pid"], signal.SIGKILL)
    # Not before: Redis may still give a message to one that is just being killed.
    wait_for(lambda: slow.status()["pools"]["slow"]["pid"] != before["pid"] and is_settled(slow), "it is back")
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=90) == 3


def has_stayed_up(running: Supervised, slot: str) -> bool:
    """Whether the slot's worker counts as up since its last start."""
    marks = [line for line in running.lines if f"spawned: '{slot}'" in line or f"success: {slot} ent" in line]
    return "success: " in marks[-1]


@pytest.mark.slow
def test_a_worker_that_dies_while_a_successor_that_cannot_start_is_starting_comes_back(
    slow: Supervised, sender: Celery, config: Path, refused_after: Path
) -> None:
    before = slow.status()["pools"]["slow"]
    wait_for(lambda: has_stayed_up(slow, before["slot"]), "it has proven to work")
    spawned = sum("spawned: 'slow" in line for line in slow.lines)
    killed = sum(f"exited: {before['slot']} (terminated by SIGKILL" in line for line in slow.lines)
    config.write_text(f'{FILE}celery_options = ["{REFUSED}"]\n')
    slow.process.send_signal(signal.SIGHUP)
    slow.wait_for_line("spawned: 'slow", count=spawned + 1, seconds=90)
    os.kill(before["pid"], signal.SIGKILL)
    slow.wait_for_line(f"exited: {before['slot']} (terminated by SIGKILL", count=killed + 1)
    refused_after.touch()
    slow.wait_for_line("did not stay up, and the worker that it was to follow has died")
    assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=90) == 3
    wait_for(lambda: is_settled(slow), "it is back")


@pytest.mark.slow
def test_a_worker_that_drains_for_too_long_is_killed_and_its_task_runs_elsewhere(
    apart: str, sender_apart: Celery, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    variables = {"RECYCLERY_DRAIN": "2"}
    with supervised("--pool", "slow", "--grace", "1", redis_url=apart, environment=variables) as running:
        running.wait_until_ready("slow")
        sender_apart.send_task("sample_app.note", (str(path), "a", 600), queue="low")
        wait_for(path.exists, "it runs")
        wait_for(lambda: is_settled(running), "the governor has heard of it")
        assert recycle(running).returncode == 0
        running.wait_for_line("slow: still not done 2 s after it was told to leave (drain_seconds): killed")
        wait_for(lambda: path.read_text().split() == ["a", "a"], "it runs again")
        wait_for(lambda: running.status()["tasks"]["reclaimed"] == 1, "it is counted")
        running.wait_for_line("reclaim what slow held")


@pytest.mark.chaos
def test_a_stop_in_the_middle_of_a_handoff_finishes_the_tasks_of_both_workers(
    apart: str, sender_apart: Celery, tmp_path: Path
) -> None:
    gates = [tmp_path / "first", tmp_path / "second"]
    with supervised("--pool", "slow", redis_url=apart) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        results = [sender_apart.send_task("sample_app.nap_until", (str(gates[0]),), queue="low")]
        wait_for(Path(f"{gates[0]}.begun").exists, "the first runs")
        assert recycle(running).returncode == 0
        results.append(sender_apart.send_task("sample_app.nap_until", (str(gates[1]),), queue="low"))
        wait_for(Path(f"{gates[1]}.begun").exists, "the second runs in the new one")
        running.process.send_signal(signal.SIGTERM)
        running.wait_for_line("Warm shutdown", count=2)
        for gate in gates:
            gate.touch()
        assert running.wait() == 0
        assert len({result.get(timeout=5) for result in results}) == 2


@pytest.mark.chaos
def test_where_memory_does_not_allow_two_the_worker_stops_first_and_says_so(apart: str) -> None:
    with supervised("--pool", "slow", "--memory-limit", "150MiB", redis_url=apart) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        done = recycle(running)
        assert (done.returncode, done.stderr) == (0, "")
        running.wait_for_line("replace slow: asked to; a second worker may take ")
        assert "it stops after its running tasks, and starts anew" in running.output
        assert "spawned: 'slow-b'" not in running.output
