"""Workers of the release before this one and of this one on one Redis, as in every rolling deployment."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from celery import Celery

from recyclery_worker.delivery.registry import GENERATIONS, LEASE_SECONDS, LEASES
from support.redis_server import count_held
from support.supervised import SUPPORT, Supervised, supervised
from support.waiting import is_alive, wait_for

ROOT = Path(__file__).parents[2]
# Where no release is tagged: the last commit whose workers compare leases with Redis's clock.
FORMER_COMMIT = "537aa56c6bbf74c401069f7a83ef55ac48dc05db"
PLACES = 2
MODULES = "import recyclery, recyclery_worker; print(recyclery.__file__, recyclery_worker.__file__)"


def git(*words: str) -> bytes | None:
    """Return what git prints; None where it cannot say, as outside a clone."""
    try:
        return subprocess.run(["git", "-C", ROOT, *words], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The environment in which each release runs."""
    tag = git("describe", "--tags", "--abbrev=0")
    former = tag.decode().strip() if tag else FORMER_COMMIT
    archive = git("archive", former, "supervisor", "worker_pool")
    if archive is None:
        pytest.skip(f"{former}, the release before this one, is not in this copy's history")
    folder = tmp_path_factory.mktemp("former")
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    path = f"{folder}/supervisor:{folder}/worker_pool:{SUPPORT}"
    found = subprocess.check_output(
        [sys.executable, "-c", MODULES], env={**os.environ, "PYTHONPATH": path}, text=True
    )
    assert all(module.startswith(str(folder)) for module in found.split())
    return {"former": {"PYTHONPATH": path}, "present": {}}


def kill_container(running: Supervised) -> None:
    """Kill PID 1 and all that it has started."""
    processes = [each.pid for each in psutil.Process(running.process.pid).children(recursive=True)]
    running.process.kill()
    for pid in processes:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def leases(client: redis.Redis) -> dict[bytes, float]:
    """Return until when each worker's lease is valid."""
    found: Any = client.zrange(LEASES, 0, -1, withscores=True)
    return dict(found)


@pytest.mark.chaos
@pytest.mark.parametrize("how", ["killed", "stopped"])
@pytest.mark.parametrize("leaving", ["former", "present"])
def test_what_a_container_of_one_release_leaves_is_done_by_the_other_and_nothing_twice(
    releases: dict[str, dict[str, str]], sender: Celery, tmp_path: Path, leaving: str, how: str
) -> None:
    staying = "former" if leaving == "present" else "present"
    url = sender.conf.broker_url
    config, notes = tmp_path / "recyclery.toml", tmp_path / "notes"
    config.write_text(f"[pools.slow]\nconcurrency = {PLACES}\n")
    options = ("--config", str(config), "--pool", "slow")
    runs, gate = [tmp_path / f"run-{number}" for number in range(2 * PLACES)], tmp_path / "gate"

    def note(mark: str, countdown: float = 0) -> None:
        sender.send_task("sample_app.note", (str(notes), mark, 0), queue="low", countdown=countdown)

    with (
        redis.Redis.from_url(url) as client,
        supervised(*options, "--grace", "3", redis_url=url, environment=releases[leaving]) as first,
        supervised(*options, redis_url=url, environment=releases[staying]) as second,
    ):
        for running in (first, second):
            running.wait_until_ready("slow")
        for number in range(40):
            note(f"later {number}", countdown=40)
        wait_for(lambda: count_held(client) == 40, "both hold tasks for later")
        for run in runs:
            sender.send_task("sample_app.run_until", (str(run), str(gate)), queue="low")
        wait_for(lambda: all(run.exists() for run in runs), "all places are taken")
        begun = leases(client)
        assert len(begun) == 2
        wait_for(
            lambda: all(leases(client)[each] > until + 1.5 * LEASE_SECONDS for each, until in begun.items()),
            "both have lived beside each other for longer than a lease",
        )
        # Neither took the other for dead.
        assert [run.read_text() for run in runs] == ["x"] * len(runs)
        if how == "killed":
            kill_container(first)
        else:
            first.stop()
        for number in range(20):
            note(f"now {number}")
        wait_for(lambda: client.hlen(GENERATIONS) == 1, "what it held is given back")
        gate.touch()
        expected = sorted(
            [f"later {number}" for number in range(40)] + [f"now {number}" for number in range(20)]
        )
        wait_for(
            lambda: notes.exists() and len(notes.read_text().splitlines()) >= len(expected), "all have run"
        )
        wait_for(lambda: not client.llen("low") and not count_held(client), "none waits")
        assert sorted(notes.read_text().splitlines()) == expected
        # Only what ran in the container that left ran again.
        assert sorted(run.read_text() for run in runs) == ["x"] * PLACES + ["xx"] * PLACES
        assert second.stop() == 0, second.output
        left: Any = client.keys("recyclery:*")
        # The mark that a worker's messages were given away, and the deaths of tasks, stay for days.
        assert [key for key in left if b":deaths:" not in key and not key.endswith(b":reclaimed")] == []
