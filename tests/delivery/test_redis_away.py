"""Redis goes away and comes back with its data: what runs is done once, what waits in hand runs after it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bare_worker import BareWorker, bare_worker
from support.kept_redis import KeptRedis, kept_redis
from support.redis_server import count_held
from support.sending import sending_to
from support.waiting import wait_for


@pytest.fixture(scope="module")
def server() -> Iterator[KeptRedis]:
    with kept_redis() as running:
        yield running


@pytest.fixture(scope="module")
def worker(server: KeptRedis) -> Iterator[BareWorker]:
    with bare_worker(server.url, options=("--prefetch-multiplier", "3")) as running:
        yield running


def begun(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_what_runs_when_redis_goes_runs_once_and_what_waited_in_hand_runs_after_it(
    server: KeptRedis, worker: BareWorker, tmp_path: Path
) -> None:
    path, gate = tmp_path / "runs", tmp_path / "gate"
    with sending_to(server.url) as sender:
        sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        wait_for(Path(f"{gate}.begun").exists, "it runs")
        for mark in ("a", "b"):
            sender.send_task("sample_app.note", (str(path), mark, 0), queue="low")
        wait_for(lambda: count_held(server.client) == 3, "it has them in hand")
        Path(f"{gate}.begun").unlink()
        server.end()
        server.start()
        wait_for(lambda: "connected" in connection_of(server), "it is connected again")
        gate.touch()
        wait_for(lambda: begun(path) == ["a", "b"], "they run, in their order")
        wait_for(lambda: count_held(server.client) == 0, "all are done with")
        assert not Path(f"{gate}.begun").exists()
        assert worker.process.poll() is None


def test_a_task_that_ends_while_redis_is_away_does_not_run_again(
    server: KeptRedis, worker: BareWorker, tmp_path: Path
) -> None:
    path = tmp_path / "runs"
    with sending_to(server.url) as sender:
        sender.send_task("sample_app.note", (str(path), "a", 1), queue="low")
        wait_for(lambda: begun(path) == ["a"], "it runs")
        server.end()
        # Its end is nowhere to be seen but in the worker, which does not answer while it looks for Redis.
        time.sleep(1.5)
        server.start()
        wait_for(lambda: count_held(server.client) == 0, "it is done with")
        sender.send_task("sample_app.note", (str(path), "b", 0), queue="low")
        wait_for(lambda: begun(path)[-1] == "b", "the next runs")
        assert begun(path) == ["a", "b"]
        assert worker.process.poll() is None


def connection_of(server: KeptRedis) -> str:
    """Tell whether a worker waits for messages."""
    names = [client["cmd"] for client in server.client.client_list()]
    return "connected" if "brpop" in names or "evalsha" in names else ", ".join(names)
