"""A real worker's child that traces a task: which lines it names, and that it leaves nothing behind."""

import importlib.util
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery

from recyclery.leaks.trace_command import CutShort, function_at, listening, receive_runs
from recyclery_worker import link
from recyclery_worker.tracing.sites import Site, TracedRuns
from support.bare_worker import BareWorker, bare_worker
from support.supervised import SUPPORT
from support.waiting import wait_for

WITHOUT_MEMRAY = {"PYTHONPATH": f"{SUPPORT}:{SUPPORT / 'no_memray'}"}
has_memray = pytest.mark.skipif(importlib.util.find_spec("memray") is None, reason="memray is not installed")
WORDS = "sample_app.leave_words"


def order(listener: socket.socket, task: str = WORDS, runs: int = 3) -> link.TraceRequest:
    return link.TraceRequest(task=task, runs=runs, warm_up=1, address=listener.getsockname())


def run(sender: Celery, task: str, *arguments: object) -> Any:
    return sender.send_task(task, arguments, queue="low").get(timeout=60)


def begin(worker: BareWorker, listener: socket.socket, *, runs: int = 3) -> int:
    """Have a child trace, and return its pid."""
    reply = worker.ask(order(listener, runs=runs))
    assert isinstance(reply, link.TracingChild)
    return reply.pid


class Heard:
    """All that a child says, taken in beside the test."""

    def __init__(self, listener: socket.socket, pid: int) -> None:
        self.seen: list[TracedRuns] = []
        self.cut_short = ""
        self._thread = threading.Thread(target=self._follow, args=(listener, pid), daemon=True)
        self._thread.start()

    def _follow(self, listener: socket.socket, pid: int) -> None:
        try:
            self.seen.extend(receive_runs(listener, pid, 120))
        except CutShort as end:
            self.cut_short = str(end)

    def wait(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextmanager
def heard_from(worker: BareWorker, *, runs: int = 3) -> Iterator[Heard]:
    with listening(worker.runtime_dir) as listener:
        yield Heard(listener, begin(worker, listener, runs=runs))


def functions(site: Site) -> list[str]:
    return [frame.function or function_at(frame.file, frame.line) for frame in site.frames]


@pytest.mark.parametrize(
    ("tool", "environment"),
    [("tracemalloc", WITHOUT_MEMRAY), pytest.param("memray", {}, marks=[has_memray, pytest.mark.slow])],
)
def test_what_a_task_keeps_is_told_by_its_line_and_what_others_keep_or_it_replaces_is_not(
    sender: Celery, fresh_redis: str, tool: str, environment: Mapping[str, str]
) -> None:
    with bare_worker(fresh_redis, environment=environment) as worker, heard_from(worker) as heard:
        for _ in range(4):
            run(sender, WORDS, 2_000)
            run(sender, "sample_app.leave_memory", 3_000_000)
        heard.wait()
    last = heard.seen[-1]
    assert (last.tool, last.over, len(last.warm_up_seconds), len(last.seconds)) == (tool, True, 1, 3)
    # What is small beside it, such as what Celery notes of each task, is nobody's leak.
    large = [site for site in last.sites if site.bytes_per_run > 10_000]
    assert {functions(site)[0] for site in large} <= {"leave_words", "<listcomp>"}
    assert 100_000 < sum(site.bytes_per_run for site in large) < 200_000
    assert all(2 * site.grew_in > last.judged for site in last.sites)


@pytest.mark.slow
def test_a_child_traces_no_more_as_soon_as_nobody_listens(sender: Celery, fresh_redis: str) -> None:
    with bare_worker(fresh_redis, environment=WITHOUT_MEMRAY) as worker:
        with listening(worker.runtime_dir) as listener:
            begin(worker, listener)
            child, _ = listener.accept()
            with child:
                assert child.recv(65536)
                assert run(sender, "sample_app.is_tracing")[1]
        assert not run(sender, "sample_app.is_tracing")[1]


@pytest.mark.slow
def test_of_two_children_one_traces_and_no_second_one_begins(sender: Celery, fresh_redis: str) -> None:
    with (
        bare_worker(fresh_redis, concurrency=2, environment=WITHOUT_MEMRAY) as worker,
        listening(worker.runtime_dir) as listener,
    ):
        traced = begin(worker, listener)
        child, _ = listener.accept()
        with child:
            refused = worker.ask(order(listener))
            assert isinstance(refused, link.Refused)
            assert "traced already" in refused.reason
            # Both at once, so that either child has one.
            sent = [sender.send_task("sample_app.is_tracing", (1,), queue="low") for _ in range(2)]
            assert {pid for pid, is_tracing in (one.get(timeout=60) for one in sent) if is_tracing} == {traced}


@pytest.mark.slow
def test_a_child_that_traces_has_no_number_of_tasks_and_when_it_dies_what_it_saw_is_known(
    sender: Celery, fresh_redis: str
) -> None:
    with (
        bare_worker(fresh_redis, max_tasks=2, environment=WITHOUT_MEMRAY) as worker,
        heard_from(worker, runs=9) as heard,
    ):
        pids = [run(sender, WORDS, 2_000) for _ in range(4)]
        assert len(set(pids)) == 1
        wait_for(lambda: heard.seen and len(heard.seen[-1].seconds) == 3, "three runs are told of")
        os.kill(pids[0], signal.SIGKILL)
        heard.wait()
    assert "before the last run" in heard.cut_short
    assert functions(heard.seen[-1].sites[0])[0] in {"leave_words", "<listcomp>"}
