"""What an operator told a worker holds for the worker that follows it, and a revoked task stays revoked."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from recyclery.control.client import ask_governor
from support.supervised import Supervised, supervised
from support.waiting import wait_for

# Without mingle, nor another pool, no other worker tells the new one which tasks are revoked.
FILE = """
[pools.slow]
queues = ["low", "bulk"]
concurrency = 1
celery_options = ["--without-mingle"]
"""


def ask(sender: Celery, command: str, **arguments: Any) -> Any:
    """Return what the only worker answers."""
    control: Any = sender.control
    (answer,) = control.broadcast(command, arguments=arguments, reply=True, timeout=30, limit=1)
    return next(iter(answer.values()))


def tell(sender: Celery, command: str, **arguments: Any) -> None:
    """Give a control command, and wait until it is carried out."""
    assert "ok" in ask(sender, command, **arguments)


def pool_of(running: Supervised) -> dict[str, Any]:
    """Return what the status says of the pool."""
    pool: dict[str, Any] = running.status()["pools"]["slow"]
    return pool


def is_settled(running: Supervised) -> bool:
    """Whether the pool has one worker, which takes tasks."""
    pool = pool_of(running)
    return pool["state"] == "running" and pool["node"] and not (pool["successor"] or pool["draining"])


def replace(running: Supervised, how: str) -> None:
    """Have the worker replaced: killed, or as an operator asks for it."""
    before = pool_of(running)["pid"]
    if how == "killed":
        os.kill(before, signal.SIGKILL)
    else:
        ask_governor(running.runtime_dir, "recycle", table="slow")
    wait_for(lambda: pool_of(running)["pid"] not in (0, before), "a new one", 90)
    wait_for(lambda: is_settled(running), "the new one alone", 90)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "recycled"])
def test_a_worker_is_followed_by_one_that_knows_what_it_was_told(
    sender: Celery, fresh_redis: str, tmp_path: Path, how: str
) -> None:
    config, notes = tmp_path / "recyclery.toml", tmp_path / "notes"
    config.write_text(FILE)
    with supervised("--config", str(config), "--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        started = time.monotonic()

        def send(mark: str, **options: Any) -> str:
            due = started + 30 - time.monotonic()
            sent = sender.send_task(
                "sample_app.note", (str(notes), mark, 0), queue="low", countdown=due, **options
            )
            return str(sent.id)

        ids = [send("revoked"), send("revoked, terminate")]
        send("stamped", stamped_headers=["customer"], customer="7")
        send("other customer", stamped_headers=["customer"], customer="8")
        wait_for(lambda: len(ask(sender, "scheduled")) == 4, "it holds them")
        tell(sender, "revoke", task_id=ids[0])
        tell(sender, "revoke", task_id=[ids[1]], terminate=True)
        tell(sender, "revoke_by_stamped_headers", headers={"customer": ["7"]})
        tell(sender, "rate_limit", task_name="sample_app.add", rate_limit="7/m")
        tell(sender, "time_limit", task_name="sample_app.nap", soft=0.5, hard=30)
        tell(sender, "add_consumer", queue="extra")
        tell(sender, "cancel_consumer", queue="bulk")
        wait_for(
            lambda: b"extra" in (running.runtime_dir / "remembered/slow/slow").read_bytes(), "it is served"
        )
        for _ in range(2):
            replace(running, how)
            assert sorted(ask(sender, "revoked")) == sorted(ids)
            assert {queue["name"] for queue in ask(sender, "active_queues")} == {"low", "extra"}
            assert "sample_app.add [rate_limit=7/m]" in ask(sender, "registered")
        napping = sender.send_task("sample_app.nap", (60,), queue="extra")
        with pytest.raises(Exception, match="SoftTimeLimitExceeded"):
            napping.get(timeout=30)
        sender.send_task("sample_app.add", (1, 2), queue="bulk")
        wait_for(notes.exists, "the other customer's task has run", 60)
        send("last")
        wait_for(lambda: "last" in notes.read_text(), "all have been received", 60)
        assert notes.read_text().split("\n") == ["other customer", "last", ""]
        assert pool_of(running)["queue_depth"] == 1
        running.wait_for_line("queue 'bulk' is cancelled")


@pytest.mark.slow
def test_a_pool_whose_queues_are_all_cancelled_is_replaced_all_the_same(
    sender: Celery, fresh_redis: str, tmp_path: Path
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        tell(sender, "cancel_consumer", queue="low")
        replace(running, "recycled")
        sent = sender.send_task("sample_app.add", (1, 2), queue="low")
        wait_for(lambda: pool_of(running)["queue_depth"] == 1, "it waits")
        tell(sender, "add_consumer", queue="low")
        assert sent.get(timeout=30) == 3
        replace(running, "killed")
        assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3


@pytest.mark.slow
def test_a_queue_that_the_broker_refuses_troubles_neither_the_worker_that_was_told_of_it_nor_the_next(
    sender: Celery, fresh_redis: str
) -> None:
    with supervised("--pool", "slow", redis_url=fresh_redis) as running:
        running.wait_until_ready("slow")
        wait_for(lambda: is_settled(running), "it runs")
        tell(sender, "add_consumer", queue="extra", exchange="extra", exchange_type="unheard-of")
        running.wait_for_line("a remote control command failed: KeyError: 'unheard-of'")
        assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
        replace(running, "killed")
        assert sender.send_task("sample_app.add", (1, 2), queue="low").get(timeout=30) == 3
