"""Standard output of PID 1: whole lines, in order, and never a wait."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from recyclery.config.settings import SLOW, Settings
from recyclery.pid1.output import BUFFER_BYTES, Outlet
from recyclery.pid1.supervisord import RunningClock, SupervisordOptions


def note_dropped(count: int) -> bytes:
    """The note that stands for dropped lines here."""
    return f"{count} dropped\n".encode()


def read_all(reader: int, outlet: Outlet) -> bytes:
    """Read until the outlet is empty, and the pipe too."""
    seen = bytearray()
    os.set_blocking(reader, False)
    while True:
        outlet.drain(0.01)
        try:
            seen += os.read(reader, 1 << 16)
        except BlockingIOError:
            return bytes(seen)


@pytest.fixture
def pipe() -> Iterator[tuple[int, Outlet]]:
    """A pipe's reading end, and an outlet on its writing end."""
    reader, writer = os.pipe()
    yield reader, Outlet(note_dropped, writer)
    os.close(reader)
    os.close(writer)


def test_lines_come_out_whole_and_in_order(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    for number in range(3):
        outlet.put(f"line {number}\n".encode())
    outlet.drain(1)
    assert os.read(reader, 4096) == b"line 0\nline 1\nline 2\n"


def test_nobody_reading_blocks_nothing_and_what_is_dropped_is_counted_in_its_place(
    pipe: tuple[int, Outlet],
) -> None:
    reader, outlet = pipe
    line = b"x" * 999 + b"\n"
    put = 2 * BUFFER_BYTES // len(line)
    for _ in range(put):
        outlet.put(line)
    outlet.drain(0.2)
    assert 0 < outlet.dropped_total < put
    assert outlet.buffered_bytes <= BUFFER_BYTES
    seen = read_all(reader, outlet)
    outlet.put(b"after\n")
    seen += read_all(reader, outlet)
    kept = put - outlet.dropped_total
    assert seen == line * kept + note_dropped(outlet.dropped_total) + b"after\n"


def test_what_was_dropped_is_said_when_the_pipe_moves_again_though_nothing_more_comes(
    pipe: tuple[int, Outlet],
) -> None:
    reader, outlet = pipe
    for _ in range(2 * BUFFER_BYTES // 1000):
        outlet.put(b"x" * 999 + b"\n")
    assert read_all(reader, outlet).endswith(note_dropped(outlet.dropped_total))


def test_a_reader_that_keeps_up_loses_nothing_however_much_comes_in_one_turn(
    pipe: tuple[int, Outlet],
) -> None:
    reader, outlet = pipe
    os.set_blocking(reader, False)
    line, seen = b"x" * 999 + b"\n", 0
    # The loop, which writes when it polls, has no turn in all this.
    for _ in range(3 * BUFFER_BYTES // len(line)):
        outlet.put(line)
        with suppress(BlockingIOError):
            seen += len(os.read(reader, 1 << 16))
    assert outlet.dropped_total == 0
    assert seen > BUFFER_BYTES


def test_a_line_longer_than_a_pipe_takes_at_once_comes_out_whole(pipe: tuple[int, Outlet]) -> None:
    reader, outlet = pipe
    outlet.put(b"y" * 20_000 + b"\n")
    outlet.drain(1)
    assert os.read(reader, 1 << 16) == b"y" * 20_000 + b"\n"


def test_a_terminal_that_nobody_reads_blocks_nothing() -> None:
    master, slave = os.openpty()
    outlet = Outlet(note_dropped, slave)
    for _ in range(200):
        outlet.put(b"x" * 999 + b"\n")
    outlet.drain(0.2)
    assert outlet.writable()
    os.close(slave)
    os.close(master)


def test_a_full_pipe_whose_reader_died_does_not_keep_the_loop_busy() -> None:
    reader, writer = os.pipe()
    settings = Settings(app="app", pools=(SLOW,), runtime_dir=Path("/run"))
    outlet = Outlet(note_dropped, writer)
    poller = SupervisordOptions(settings, outlet, RunningClock()).poller
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


def test_a_file_that_others_write_to_as_well_keeps_all_lines(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as log:
        log.write(b"a shell\n")
        outlet = Outlet(note_dropped, log.fileno())
        outlet.put(b"the supervisor\n")
        outlet.drain(1)
        log.write(b"the shell again\n")
    assert (tmp_path / "log").read_bytes() == b"a shell\nthe supervisor\nthe shell again\n"


def test_a_reader_that_is_gone_does_not_stop_the_supervisor() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    outlet = Outlet(note_dropped, writer)
    outlet.put(b"to nobody\n")
    outlet.drain(1)
    assert not outlet.writable()
    os.close(writer)
