"""What a running task has added to its child: whose processes count, and no page of a fork twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from msgspec.structs import replace

from recyclery.config.settings import SLOW, Pool
from recyclery.observe.processes import read_process, with_memory
from recyclery.observe.snapshot import Child, Owner
from recyclery.observe.task_memory import READ_AGAIN_SECONDS, TaskMemory, started_since
from recyclery_worker.link import now
from support.snapshots import MIB, child, process

LIMITED = replace(SLOW, max_task_bytes={"*": 100 * MIB})


def this_child(*pids: int, held_bytes: int, **rest: object) -> Child:
    """Return this process as a pool child that has a task, with others as its members."""
    found = [read_process(pid) for pid in (os.getpid(), *pids)]
    members = tuple(with_memory(each) for each in found if each is not None)
    state = {"task_id": "a", "task_name": "shop.scrape", "idle_bytes": held_bytes, "first_task_started": 0.1}
    return Child(Owner("slow", os.getpid(), members[0].start_ticks), members, **(state | rest))  # type: ignore[arg-type]


def measure(*children: Child, memory: TaskMemory | None = None, at: float = 0.0, pool: Pool = LIMITED) -> int:
    (measured,) = (memory or TaskMemory()).measure(children, (pool,), at)
    return measured.task_bytes


def own_bytes() -> int:
    return this_child(held_bytes=0).processes[0].anon_bytes


@contextmanager
def forked(count: int) -> Iterator[list[int]]:
    """Fork processes that do nothing until the block ends."""
    pids = []
    for _ in range(count):
        if (pid := os.fork()) == 0:
            with suppress(BaseException):
                signal.pause()
            os._exit(0)
        pids.append(pid)
    try:
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_what_a_task_allocates_counts_and_what_its_child_held_before_does_not() -> None:
    before = own_bytes()
    held = b"x" * (150 * MIB)
    assert measure(this_child(held_bytes=before)) == pytest.approx(150 * MIB, rel=0.03)
    assert measure(this_child(held_bytes=own_bytes() - 90 * MIB)) == 0
    del held


def test_pages_that_forked_processes_share_with_the_child_count_once() -> None:
    before = own_bytes()
    held = b"x" * (120 * MIB)
    with forked(6) as pids:
        looks = this_child(*pids, held_bytes=before)
        assert looks.tree_bytes > 840 * MIB
        assert measure(looks) == pytest.approx(120 * MIB, rel=0.1)
        assert measure(this_child(*pids, held_bytes=before + 60 * MIB)) <= 100 * MIB
    del held


def test_a_program_that_a_task_starts_counts() -> None:
    code = f"held = b'x' * {150 * MIB}; print(flush=True); import time; time.sleep(600)"
    # Another interpreter than this one would be counted by PSS; this one by what it shares with nobody.
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        program.stdout.readline()
        try:
            assert measure(this_child(program.pid, held_bytes=own_bytes())) == pytest.approx(155 * MIB, rel=0.1)
            old = this_child(program.pid, held_bytes=own_bytes(), last_task_ended=now() + 1)
            assert measure(old) == 0
        finally:
            program.kill()


def test_pss_is_read_again_only_after_a_while_or_some_growth() -> None:
    memory, before = TaskMemory(), own_bytes()
    held = b"x" * (80 * MIB)
    with forked(2) as pids:
        child = this_child(*pids, held_bytes=before)
        assert 0 < (first := measure(child, memory=memory)) < 100 * MIB
        more = b"x" * (60 * MIB)
        # The same figures as before: they hide what has grown.
        assert measure(child, memory=memory, at=READ_AGAIN_SECONDS - 0.1) == first
        assert measure(this_child(*pids, held_bytes=before), memory=memory, at=1.0) > 130 * MIB
    del held, more


def test_a_task_without_a_limit_a_traced_child_and_an_idle_one_are_not_measured() -> None:
    held = b"x" * (150 * MIB)
    before = own_bytes() - 150 * MIB
    assert measure(this_child(held_bytes=before), pool=SLOW) == 0
    assert measure(this_child(held_bytes=before), pool=replace(LIMITED, max_task_bytes={"other": MIB})) == 0
    assert measure(this_child(held_bytes=before, tracing="on")) == 0
    assert measure(this_child(held_bytes=before, task_id=None)) == 0
    del held


def test_a_task_that_ran_before_the_governor_started_has_its_limit_for_what_comes_then() -> None:
    memory, held = TaskMemory(), b"x" * (150 * MIB)
    restarted = {"held_bytes": 0, "first_task_started": None}
    assert measure(this_child(**restarted), memory=memory, at=now()) == 0  # type: ignore[arg-type]
    more = b"x" * (150 * MIB)
    seen = measure(this_child(**restarted), memory=memory, at=now())  # type: ignore[arg-type]
    assert seen == pytest.approx(150 * MIB, rel=0.03)
    del held, more


@pytest.mark.parametrize(("kept", "counted"), [((), ["new"]), ((30,), ["new", "page"])], ids=["left", "kept"])
def test_what_an_older_process_starts_counts_only_where_that_is_kept_for_the_task(
    kept: tuple[int, ...], counted: list[str]
) -> None:
    members = (
        process(30, started=50, parent=20, name="driver"),
        process(31, started=51, parent=30, name="browser"),
        process(32, started=101, parent=31, name="page"),
        process(33, started=101, parent=20, name="new"),
    )
    having = child(*members, task_id="a", kept=kept)
    assert sorted(each.name for each in started_since(having, 100.0)) == counted


def test_processes_whose_parents_form_a_circle_are_no_trouble() -> None:
    members = (process(30, started=101, parent=31), process(31, started=101, parent=30))
    assert len(list(started_since(child(*members, task_id="a"), 100.0))) == 2
