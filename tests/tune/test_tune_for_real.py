"""`recyclery tune` leaves Redis as it was, and no process, however it ends."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest
import redis

from support.redis_kinds import Kind, behind_sentinel, behind_tls, with_prefix
from support.supervised import SUPPORT
from support.tuning import QUICK, content_of, processes_of, tuning, wait_until_tuned
from support.waiting import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


@pytest.fixture
def client(fresh_redis: str) -> Iterator[redis.Redis]:
    """A Redis in service: messages wait, a worker holds some, results are kept."""
    with redis.Redis.from_url(fresh_redis) as opened:
        opened.lpush("low", b"one", b"two")
        opened.lpush("high", b"three")
        opened.hset("recyclery:1:unacked", "tag", b"held")
        opened.sadd("_kombu.binding.low", b"low\x06\x16\x06\x16low")
        opened.set("celery-task-meta-1", b"kept")
        yield opened


def test_a_finished_tuning_leaves_redis_as_it_was_whatever_its_tasks_send(
    client: redis.Redis, fresh_redis: str, tmp_path: Path
) -> None:
    before = content_of(client)
    run = tmp_path / "run.jsonl"
    with tuning(
        fresh_redis,
        tmp_path,
        *QUICK,
        *("--task", "tune_app.send_others", "--concurrency", "2", "--repeats", "1", "--json"),
        *("--out", str(run)),
    ) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    (level,) = json.loads(output)["levels"]
    assert (level["done"] > 0, level["errors"]) == (True, 0)
    assert "the tasks themselves sent" in errors
    assert content_of(client) == before


@pytest.mark.parametrize("run", [behind_tls, behind_sentinel, with_prefix])
def test_redis_as_people_have_it_is_left_as_it_was(
    run: Callable[[], AbstractContextManager[Kind]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run() as kind, redis.Redis.from_url(kind.plain_url) as client:
        monkeypatch.setenv("PLAIN_URL", kind.plain_url)
        monkeypatch.setenv("TRANSPORT_OPTIONS", json.dumps(kind.options))
        client.lpush(f"{kind.options.get('global_keyprefix', '')}low", b"one")
        before = content_of(client)
        wanted = ("--task", "tune_app.send_others", "--concurrency", "2", "--repeats", "1", "--json")
        with tuning(kind.url, tmp_path, *QUICK, *wanted) as process:
            output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        assert json.loads(output)["levels"][0]["done"] > 0
        assert content_of(client) == before


def test_a_tuning_whose_tasks_all_fail_says_so_and_leaves_redis_as_it_was(
    client: redis.Redis, fresh_redis: str, tmp_path: Path
) -> None:
    before = content_of(client)
    with tuning(fresh_redis, tmp_path, *QUICK, "--task", "tune_app.fail", "--concurrency", "1") as process:
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, "ValueError" in errors) == (1, True), errors
    assert content_of(client) == before


def test_a_tuning_that_is_interrupted_leaves_redis_as_it_was_and_can_go_on(
    client: redis.Redis, fresh_redis: str, tmp_path: Path
) -> None:
    before = content_of(client)
    with tuning(
        fresh_redis, tmp_path, *QUICK, "--task", "tune_app.nap", "--concurrency", "1", "--repeats", "1"
    ) as process:
        name = wait_until_tuned(client)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert content_of(client) == before
    assert not processes_of(name)
    resume = next(line for line in errors.splitlines() if "--resume" in line).split()[-1]
    with tuning(fresh_redis, tmp_path, "--resume", resume, "--json") as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert [level["repeats"] for level in json.loads(output)["levels"]] == [1]


def test_a_tuning_that_is_killed_leaves_redis_as_it_was_and_no_process(
    client: redis.Redis, fresh_redis: str, tmp_path: Path
) -> None:
    before = content_of(client)
    with tuning(fresh_redis, tmp_path, *QUICK, "--task", "tune_app.nap", "--concurrency", "2") as process:
        name = wait_until_tuned(client)
        process.kill()
        process.wait()
    wait_for(lambda: not processes_of(name), "its processes have ended")
    assert content_of(client) == before


def test_what_a_tuning_left_whose_processes_were_all_killed_is_removed_by_reclaim(
    client: redis.Redis, fresh_redis: str, tmp_path: Path
) -> None:
    # That would be given back, too.
    client.delete("recyclery:1:unacked")
    before = content_of(client)
    with tuning(fresh_redis, tmp_path, *QUICK, "--task", "tune_app.nap", "--concurrency", "1") as process:
        name = wait_until_tuned(client)
        for pid in [process.pid, *processes_of(name)]:
            # What one of them watches over may have ended with it.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: not processes_of(name), "its processes have ended")
    assert content_of(client) != before
    # Its lease ends by Redis's clock.
    client.zadd("recyclery:tunes", {name: 1.0})
    done = subprocess.run(
        [sys.executable, "-m", "recyclery", "reclaim", "--app", "tune_app"],
        env={**os.environ, "PYTHONPATH": str(SUPPORT), "REDIS_URL": fresh_redis},
        capture_output=True,
        text=True,
        check=True,
    )
    assert name in done.stdout
    assert content_of(client) == before
