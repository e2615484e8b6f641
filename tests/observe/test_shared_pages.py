"""What forked processes hold together: read of real ones, and by hand what cannot be forked on demand."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from recyclery.observe.processes import read_anon_pss, read_processes, with_memory
from recyclery.observe.shared_pages import DECIDING_SHARE, SharedPages
from recyclery.observe.snapshot import Process
from support.snapshots import MIB, process

# Holds argv[1] MiB, forks argv[2] processes that allocate argv[3] MiB each, and says when all is there.
FORKS = """
import os, sys, time
held, forks, own = map(int, sys.argv[1:])
data = b"x" * (held << 20)
said, says = os.pipe()
for _ in range(forks):
    if not os.fork():
        more = os.urandom(1) * (own << 20)
        os.write(says, b".")
        time.sleep(600)
for _ in range(forks):
    os.read(said, 1)
print("there", flush=True)
time.sleep(600)
"""


@contextmanager
def session_of(held_mib: int, forks: int, own_mib: int = 0, before: str = "") -> Iterator[tuple[Process, ...]]:
    command = [sys.executable, "-c", before + FORKS, str(held_mib), str(forks), str(own_mib)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as leader:
        try:
            assert leader.stdout is not None
            leader.stdout.readline()
            yield tuple(with_memory(one) for one in read_processes() if one.session == leader.pid)
        finally:
            os.killpg(leader.pid, signal.SIGKILL)


def held_bytes(processes: tuple[Process, ...]) -> int:
    return sum(process.anon_bytes for process in processes)


def test_what_forked_processes_share_is_counted_once() -> None:
    with session_of(held_mib=120, forks=6) as session:
        assert len(session) == 7
        assert held_bytes(session) > 7 * 120 * MIB
        assert 120 * MIB < held_bytes(SharedPages(DECIDING_SHARE).count_once(session, 0.0)) < 160 * MIB


def test_what_forked_processes_allocate_themselves_is_counted() -> None:
    with session_of(held_mib=50, forks=3, own_mib=80) as session:
        held = held_bytes(SharedPages(DECIDING_SHARE).count_once(session, 0.0))
        assert 290 * MIB <= held < 320 * MIB


def test_the_process_that_forked_keeps_its_own_figure() -> None:
    with session_of(held_mib=60, forks=2, own_mib=40) as session:
        counted = SharedPages(DECIDING_SHARE).count_once(session, 0.0)
        root = min(session, key=lambda one: one.pid)
        assert next(one for one in counted if one.pid == root.pid) == root


def test_hundreds_of_forked_sleepers_hold_little_more_than_one() -> None:
    with session_of(held_mib=60, forks=300) as session:
        pages = SharedPages(DECIDING_SHARE)
        for tick in range(3):
            assert held_bytes(pages.count_once(session, float(tick))) < 60 * MIB + 301 * 2 * MIB


def test_a_program_that_was_started_counts_in_full() -> None:
    starts = (
        "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    )
    with session_of(held_mib=10, forks=0, before=starts) as session:
        assert len({one.image for one in session}) == 2
        assert SharedPages(DECIDING_SHARE).count_once(session, 0.0) == session


def test_a_forked_process_has_the_image_of_its_parent() -> None:
    with session_of(held_mib=1, forks=2) as session:
        assert len({one.image for one in session}) == 1
        assert session[0].image != 0


def test_the_anonymous_pss_of_a_process_that_shares_nothing_is_what_it_holds() -> None:
    with session_of(held_mib=80, forks=0) as (alone,):
        pss = read_anon_pss(alone.pid)
        assert pss is not None
        assert abs(pss - alone.anon_bytes) < MIB


def family(*mib: int) -> tuple[Process, ...]:
    return tuple(replace(process(20 + n, mib=each, name="python"), image=7) for n, each in enumerate(mib))


def test_where_pss_cannot_be_read_no_more_than_the_largest_is_counted() -> None:
    counted = SharedPages(DECIDING_SHARE, read=lambda _: None).count_once(family(100, 100, 100), 0.0)
    assert 99 * MIB < held_bytes(counted) <= 100 * MIB


def test_reading_takes_no_more_than_its_share_of_a_core() -> None:
    reads: list[int] = []
    pages = SharedPages(DECIDING_SHARE, read=lambda pid: reads.append(pid) or 10 * MIB)  # type: ignore[func-returns-value]
    pages._seconds_left = 0.0
    pages._refilled = 1.0
    pages.count_once(family(100, 100), 1.0)
    assert reads == []
    pages.count_once(family(100, 100), 2.0)
    assert reads == [20, 21]


def test_a_process_that_has_not_changed_is_not_read_again() -> None:
    reads: list[int] = []
    pages = SharedPages(DECIDING_SHARE, read=lambda pid: reads.append(pid) or 50 * MIB)  # type: ignore[func-returns-value]
    for at in (0.0, 1.0, 2.0):
        pages.count_once(family(100, 100), at)
        pages.turn()
    assert reads == [20, 21]
    pages.count_once(family(100, 120), 3.0)
    assert reads == [20, 21, 21]
