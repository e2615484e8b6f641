"""Standard output of PID 1: whole lines, in order, and never a wait."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from recyclery.config.settings import SLOW, Settings
from recyclery.init.outlet import BUFFER_BYTES, LineLog, Outlet
from recyclery.init.processes import Options


@pytest.fixture
def pipe() -> Iterator[tuple[int, Outlet]]:
    """A pipe's reading end, and an outlet on its writing end."""
    reader, writer = os.pipe()
    yield reader, Outlet(writer)
    os.close(reader)
    os.close(writer)


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    for number in range(3):
        outlet.put(f"line {number}\n".encode())
    outlet.drain(1)
    assert os.read(reader, 4096) == b"line 0\nline 1\nline 2\n"


def test_a_pieces_end_in_the_middle_of_a_line_waits_for_the_rest(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    log = LineLog(outlet, "slow")
    log.info(b"one\ntw")
    log.info(b"o\n")
    outlet.drain(1)
    assert os.read(reader, 4096) == b"slow | one\nslow | two\n"


def test_a_last_line_without_a_newline_is_not_lost(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    log = LineLog(outlet, "slow")
    log.info(b"half")
    log.close()
    outlet.drain(1)
    assert os.read(reader, 4096) == b"slow | half\n"


def test_nobody_reading_blocks_nothing_and_what_is_dropped_is_counted(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    line = b"x" * 999 + b"\n"
    for _ in range(2 * BUFFER_BYTES // len(line)):
        outlet.put(line)
    outlet.drain(0.2)
    seen = bytearray()
    while outlet.writable():
        seen += os.read(reader, 1 << 16)
        outlet.drain(0.01)
    outlet.put(b"after\n")
    outlet.drain(1)
    seen += os.read(reader, 1 << 16)
    assert b"log lines dropped: standard output was not read" in seen
    assert seen.endswith(b"after\n")


def test_a_line_longer_than_a_pipe_takes_at_once_comes_out_whole(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    outlet.put(b"y" * 20_000 + b"\n")
    outlet.drain(1)
    assert os.read(reader, 1 << 16) == b"y" * 20_000 + b"\n"


def test_a_terminal_that_nobody_reads_blocks_nothing() -> None:
    master, slave = os.openpty()
    outlet = Outlet(slave)
    for _ in range(200):
        outlet.put(b"x" * 999 + b"\n")
    outlet.drain(0.2)
    assert outlet.writable()
    os.close(slave)
    os.close(master)


def test_a_full_pipe_whose_reader_died_does_not_keep_the_loop_busy() -> None:
    reader, writer = os.pipe()
    settings = Settings(app="app", pools=(SLOW,), runtime_dir=Path("/run"))
    outlet = Outlet(writer)
    poller = Options(settings, outlet).poller
    for _ in range(500):
        outlet.put(b"x" * 999 + b"\n")
    outlet.drain(0.1)
    os.close(reader)
    for _ in range(1000):
        if not outlet.writable():
            break
        poller.register_writable(outlet.fd)
        if outlet.fd in poller.poll(0.1)[1]:
            outlet.handle_write_event()
    assert not outlet.writable()
    os.close(writer)


def test_a_reader_that_is_gone_does_not_stop_the_supervisor() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(writer)
    outlet.put(b"to nobody\n")
    outlet.drain(1)
    assert not outlet.writable()
    os.close(writer)
