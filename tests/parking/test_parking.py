"""Tasks that kill their process, on a real worker: parked at last, and then in a person's hands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery, chord
from celery.result import AsyncResult

from recyclery_worker.parking.records import DeadLetterStore, Parked
from support.bare_worker import bare_worker
from support.parked import run_parked
from support.redis_server import count_held, empty
from support.sending import sending_to
from support.waiting import wait_for

ALWAYS = 99


@pytest.fixture(scope="module")
def url(redis_url: str) -> Iterator[str]:
    """A Redis with a worker of two children, shared: each test uses tasks of its own."""
    empty(redis_url)
    with bare_worker(redis_url, concurrency=2):
        yield redis_url


@pytest.fixture
def sending(url: str) -> Iterator[Celery]:
    with sending_to(url) as app:
        yield app


@pytest.fixture
def parked(url: str) -> Iterator[DeadLetterStore]:
    with redis.Redis.from_url(url) as client:
        yield DeadLetterStore(client)


def send_poison(sending: Celery, path: Path, times: int = ALWAYS) -> AsyncResult[Any]:
    return sending.send_task("sample_app.die", (str(path), times), queue="low")


def wait_until_parked(sending: Celery, *task_ids: str) -> None:
    results = [sending.AsyncResult(each) for each in task_ids]
    wait_for(lambda: all(result.state == "FAILURE" for result in results), "it is parked")


def runs(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_a_task_that_keeps_killing_its_process_is_parked_and_the_others_of_its_queue_go_on(
    sending: Celery, parked: DeadLetterStore, tmp_path: Path
) -> None:
    poison = send_poison(sending, tmp_path / "runs")
    others = [sending.send_task("sample_app.add", (number, 1), queue="low") for number in range(10)]
    assert [other.get(timeout=30) for other in others] == list(range(1, 11))
    wait_until_parked(sending, poison.id)
    assert runs(tmp_path / "runs") == 3
    assert poison.id in {task.task_id for task in parked.list_parked()}
    assert count_held(parked.client) == 0


def test_the_result_and_the_history_of_a_parked_task_explain_why(
    sending: Celery, parked: DeadLetterStore, tmp_path: Path
) -> None:
    poison = send_poison(sending, tmp_path / "runs")
    with pytest.raises(Parked, match="died 3 times"):
        poison.get(timeout=30)
    deaths = parked.list_deaths(poison.id)
    assert [death.how for death in deaths] == ["Worker exited prematurely: signal 9 (SIGKILL)"] * 3
    assert len({death.pid for death in deaths}) == 3


def test_a_task_that_succeeds_in_time_runs_to_its_end_and_its_deaths_are_forgotten(
    sending: Celery, parked: DeadLetterStore, tmp_path: Path
) -> None:
    result = send_poison(sending, tmp_path / "runs", times=2)
    assert result.get(timeout=30) == 3
    wait_for(lambda: not parked.list_deaths(result.id), "they are forgotten")


def test_a_retried_task_runs_again_and_may_die_as_often_as_before(
    url: str, sending: Celery, tmp_path: Path
) -> None:
    poison = send_poison(sending, tmp_path / "runs", times=5)
    wait_until_parked(sending, poison.id)
    done = run_parked(url, "retry", poison.id)
    assert done.stdout == f"{poison.id}  sample_app.die: back in its queue\n", done.stderr
    # Not by get(): this client was sent the failure too, and would raise it.
    wait_for(lambda: sending.AsyncResult(poison.id).state == "SUCCESS", "it has run to its end")
    assert runs(tmp_path / "runs") == 6


def test_parked_show_lists_how_each_run_ended_and_drop_removes_all_parked_tasks(
    url: str, sending: Celery, parked: DeadLetterStore, tmp_path: Path
) -> None:
    poisons = [send_poison(sending, tmp_path / name) for name in ("a", "b")]
    wait_until_parked(sending, *(poison.id for poison in poisons))
    assert run_parked(url, "show", poisons[0].id).stdout.count("signal 9 (SIGKILL)") == 3
    dropped = json.loads(run_parked(url, "drop", "--all", "--json").stdout)["drop"]
    assert {poison.id for poison in poisons} <= set(dropped)
    assert parked.list_parked() == []
    gone = run_parked(url, "retry", poisons[1].id)
    assert (gone.returncode, gone.stderr) == (
        1,
        f"recyclery: {poisons[1].id} is not parked: see `recyclery parked list`\n",
    )


def send_chord(sending: Celery, path: Path, times: int) -> tuple[str, AsyncResult[Any]]:
    """Send a poison and a sum of which it is a part; return the poison's id and the sum's result."""
    poison = sending.signature("sample_app.die", (str(path), times), queue="low").set(task_id=f"in-{path}")
    other = sending.signature("sample_app.add", (1, 1), queue="low")
    return f"in-{path}", chord([poison, other])(sending.signature("sample_app.total", queue="low"))


def test_a_chord_waits_for_a_parked_task_and_goes_on_when_that_is_retried(
    url: str, sending: Celery, tmp_path: Path
) -> None:
    poison, total = send_chord(sending, tmp_path / "runs", times=3)
    wait_until_parked(sending, poison)
    assert total.state == "PENDING"
    run_parked(url, "retry", poison)
    assert total.get(timeout=30) == 4 + 2


def test_a_chord_fails_when_its_parked_task_is_dropped(url: str, sending: Celery, tmp_path: Path) -> None:
    poison, total = send_chord(sending, tmp_path / "runs", times=ALWAYS)
    wait_until_parked(sending, poison)
    assert run_parked(url, "drop", poison).returncode == 0
    with pytest.raises(Exception, match="it was dropped"):
        total.get(timeout=30)


def test_a_hard_time_limit_is_a_death_where_the_task_is_given_back_for_it(
    sending: Celery, parked: DeadLetterStore, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    late = sending.send_task("sample_app.overrun", (str(gate),), queue="low")
    wait_for(lambda: parked.list_deaths(late.id), "it ran into its limit")
    gate.touch()
    assert parked.list_deaths(late.id)[0].how == "TimeLimitExceeded(1)"
