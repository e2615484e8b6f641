"""The link to a real worker: what it answers, and how children leave."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from celery.result import AsyncResult

from recyclery_worker import link
from support.redis_server import empty
from support.sending import sending_to
from support.supervised import Supervised, ask, ask_raw, supervised
from support.waiting import is_alive, wait_for


@pytest.fixture(scope="module")
def slow(redis_url: str) -> Iterator[Supervised]:
    """A supervisor with the slow pool up, shared: a test leaves it as it found it."""
    empty(redis_url)
    with supervised("--pool", "slow", redis_url=redis_url) as running:
        running.wait_until_ready("slow")
        yield running


def stat(running: Supervised, pool: str = "slow") -> link.WorkerStat:
    reply = ask(running, link.StatRequest(), pool)
    assert isinstance(reply, link.WorkerStat)
    return reply


def test_stat_returns_the_worker_and_its_children(slow: Supervised) -> None:
    told = stat(slow)
    assert (told.pool, told.node, told.concurrency, told.max_tasks_per_child, told.lack) == (
        "slow", f"slow@{os.uname().nodename}", 1, 10, "",
    )  # fmt: skip
    assert len(told.children) == 1


def test_stat_returns_the_running_task(slow: Supervised, sender: Celery, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    result = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    child = wait_for(lambda: next((c for c in stat(slow).children if c.task_id), None), "a running task")
    assert (child.task_id, child.task_name) == (result.id, "sample_app.nap_until")
    gate.touch()
    result.get(timeout=10)
    wait_for(lambda: stat(slow).children[0].task_id is None, "no running task")


def test_a_pool_child_leads_a_session_of_its_own(slow: Supervised) -> None:
    pid = idle_child(slow)
    assert os.getsid(pid) == pid


def idle_child(running: Supervised) -> int:
    """Return the pid of the one child, when it has finished starting and has no task."""
    return wait_for(lambda: next((c.pid for c in stat(running).children if not c.task_id), 0), "an idle child")


def retire(running: Supervised, pid: int) -> None:
    """Retire a child, as soon as it has finished starting."""
    wait_for(
        lambda: ask(running, link.RetireRequest(pid=pid)) == link.RequestDone() or not is_alive(pid),
        "it is retired",
    )


def test_an_idle_child_that_is_retired_leaves_at_once_and_has_a_successor(slow: Supervised) -> None:
    pid = idle_child(slow)
    retire(slow, pid)
    wait_for(lambda: not is_alive(pid), "it is gone", seconds=5)
    wait_for(lambda: [c.pid for c in stat(slow).children] not in ([], [pid]), "a successor", seconds=5)


def test_a_busy_child_that_is_retired_finishes_its_task_and_takes_no_other(
    slow: Supervised, sender: Celery, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    first = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    second = sender.send_task("sample_app.nap", (0,), queue="low")
    child = wait_for(lambda: next((c for c in stat(slow).children if c.task_id), None), "a running task")
    assert ask(slow, link.RetireRequest(pid=child.pid)) == link.RequestDone()
    gate.touch()
    assert first.get(timeout=10) == child.pid
    assert second.get(timeout=10) != child.pid


@pytest.mark.slow
def test_a_child_that_is_leaving_takes_no_work_from_the_others(fresh_redis: str, tmp_path: Path) -> None:
    apart = fresh_redis.removesuffix("/0") + "/6"
    gate = tmp_path / "gate"
    with (
        supervised("--single", redis_url=apart) as running,
        sending_to(apart) as sender,
    ):
        running.wait_until_ready("worker")
        held = sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
        child = wait_for(
            lambda: next((c for c in stat(running, "worker").children if c.task_id), None), "a task"
        )
        assert ask(running, link.RetireRequest(pid=child.pid), "worker") == link.RequestDone()
        naps = [sender.send_task("sample_app.nap", (0,), queue="low") for _ in range(3)]
        assert child.pid not in [nap.get(timeout=10) for nap in naps]
        assert not held.ready()
        gate.touch()
        assert held.get(timeout=10) == child.pid


def test_retiring_twice_is_retiring_once(slow: Supervised) -> None:
    pid = idle_child(slow)
    retire(slow, pid)
    retire(slow, pid)


def test_a_pid_that_is_no_child_is_refused(slow: Supervised) -> None:
    assert ask(slow, link.RetireRequest(pid=1)) == link.Refused(reason="1 is not a child of this pool")


def test_children_to_come_get_the_new_limit(slow: Supervised, sender: Celery) -> None:
    assert ask(slow, link.SetMaxTasksRequest(max_tasks=2)) == link.RequestDone()
    assert stat(slow).max_tasks_per_child == 2
    retire(slow, idle_child(slow))
    results = [sender.send_task("sample_app.nap", (0,), queue="low") for _ in range(4)]
    pids = [result.get(timeout=20) for result in results]
    assert pids[0] == pids[1] != pids[2] == pids[3]
    assert ask(slow, link.SetMaxTasksRequest(max_tasks=10)) == link.RequestDone()


def send_nap(sender: Celery, gate: Path) -> "AsyncResult[Any]":
    """Send a task that ends at once."""
    gate.touch()
    return sender.send_task("sample_app.nap_until", (str(gate),), queue="low")


def test_a_paused_worker_takes_no_task_until_it_is_resumed(
    slow: Supervised, sender: Celery, tmp_path: Path
) -> None:
    wait_for(send_nap(sender, tmp_path / "before").ready, "a task is done")
    assert ask(slow, link.PauseRequest(seconds=30)) == link.RequestDone()
    assert stat(slow).holding
    during = send_nap(sender, tmp_path / "during")
    time.sleep(0.5)  # Nothing must happen: there is no state to wait for.
    assert not during.ready()
    assert ask(slow, link.PauseRequest(seconds=0)) == link.RequestDone()
    assert not stat(slow).holding
    wait_for(Path(f"{tmp_path / 'during'}.begun").exists, "it is taken")


def test_a_pause_that_nobody_renews_expires(slow: Supervised, sender: Celery, tmp_path: Path) -> None:
    assert ask(slow, link.PauseRequest(seconds=1)) == link.RequestDone()
    gate = tmp_path / "gate"
    gate.touch()
    sender.send_task("sample_app.nap_until", (str(gate),), queue="low")
    wait_for(Path(f"{gate}.begun").exists, "it is taken", seconds=5)
    assert not stat(slow).holding


@pytest.mark.parametrize(
    "packet", [b"\0", b"not json", b"{}", b'{"type":"fly"}', b'{"type":"retire","pid":"x"}', b"[" * 9999]
)
def test_a_packet_that_is_no_request_is_refused_with_the_reason(slow: Supervised, packet: bytes) -> None:
    reply = ask_raw(slow, packet)
    assert isinstance(reply, link.Refused)
    assert reply.reason.startswith("not a request")


def test_a_limit_below_one_is_refused(slow: Supervised) -> None:
    assert ask(slow, link.SetMaxTasksRequest(max_tasks=0)) == link.Refused(
        reason="max_tasks must be at least 1"
    )


def test_a_peer_that_disconnects_without_a_request_does_not_disturb_the_worker(slow: Supervised) -> None:
    for _ in range(20):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect(str(link.worker_socket(slow.runtime_dir, "slow")))
            peer.send(link.encode_message(link.StatRequest()))
    assert stat(slow).pool == "slow"
