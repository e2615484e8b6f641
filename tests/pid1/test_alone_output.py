"""What PID 1 prints, as JSON, into a pipe that nobody reads, and on a terminal."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from support.stood_in import DRAINING, READY, Start
from support.terminal import Terminal, become_terminals_session
from support.waiting import wait_for

FLOOD = f"yes {'x' * 200} | head -c 4000000; touch $GATE; {READY}"


def test_json_is_one_object_a_line_whoever_speaks(start: Start) -> None:
    command = f"printf 'caf\\351\\n'; echo '[2026-01-01 00:00:00,000: ERROR/MainProcess] bad'; {READY}"
    with start(commands={"slow": command}, environment={"RECYCLERY_LOG_FORMAT": "json"}) as running:
        running.wait_for_line("watching slow")
        running.wait_for_line('"message":"up"')
        assert running.stop() == 0
        entries = [json.loads(line) for line in running.lines]
    assert {entry["pool"] for entry in entries} == {"recyclery", "governor", "slow"}
    assert all("time" in entry for entry in entries)
    by_message = {entry["message"]: entry for entry in entries}
    assert by_message["bad"]["level"] == "error"
    assert "level" not in by_message["caf\\xe9"]
    assert by_message["🔨 Starting Celery Worker"]["pool"] == "slow"
    assert by_message["watching slow"]["level"] == "info"


def test_a_pipe_that_nobody_reads_stops_neither_the_worker_nor_the_end(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "flooded"
    reader, writer = os.pipe()
    with start(commands={"slow": FLOOD}, environment={"GATE": str(gate)}, stdout=writer) as running:
        wait_for(gate.exists, "all was taken from the worker")
        assert running.stop() == 0
    os.close(reader)
    os.close(writer)


def test_a_socket_that_nobody_reads_stops_it_as_little(start: Start, tmp_path: Path) -> None:
    import socket

    gate = tmp_path / "flooded"
    ours, theirs = socket.socketpair()
    with (
        ours,
        theirs,
        start(commands={"slow": FLOOD}, environment={"GATE": str(gate)}, stdout=theirs.fileno()) as running,
    ):
        wait_for(gate.exists, "all was taken from the worker")
        assert running.stop() == 0


def waiting_bytes(reader: int) -> int:
    """Return how much waits in a pipe."""
    return int.from_bytes(fcntl.ioctl(reader, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_bare_supervisord_stands_still_on_such_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "flood.sh").write_text(FLOOD)
    configuration = tmp_path / "supervisord.conf"
    configuration.write_text(
        f"[supervisord]\nnodaemon=true\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile={tmp_path}/pid\n"
        f"[program:slow]\ncommand=/bin/sh {tmp_path}/flood.sh\nenvironment=GATE={tmp_path}/flooded\n"
        "stdout_logfile=/dev/fd/1\nstdout_logfile_maxbytes=0\n"
    )
    reader, writer = os.pipe()
    command = [str(Path(sys.executable).with_name("supervisord")), "-c", str(configuration)]
    with subprocess.Popen(command, stdout=writer, stderr=subprocess.DEVNULL) as process:
        wait_for(lambda: waiting_bytes(reader) > 60_000, "the pipe is full")
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        # Its end, as that of the flood, is that somebody closes the pipe.
        os.close(writer)
        os.close(reader)
        process.wait(20)


def test_when_the_pipe_moves_again_it_is_told_how_much_was_dropped(start: Start, tmp_path: Path) -> None:
    gate = tmp_path / "flooded"
    reader, writer = os.pipe()
    with start(commands={"slow": FLOOD}, environment={"GATE": str(gate)}, stdout=writer) as running:
        os.close(writer)
        wait_for(gate.exists, "all was taken from the worker")
        seen = bytearray()
        while b"log lines dropped: standard output was not read" not in seen:
            seen += os.read(reader, 1 << 16)
            assert len(seen) < 4_000_000
        running.send(signal.SIGTERM)
        while piece := os.read(reader, 1 << 16):
            seen += piece
        assert b"slow | bye" in seen
        assert running.wait() == 0
    os.close(reader)


def test_ctrl_c_on_its_terminal_stops_it_in_order(wrapper: tuple[str, ...], tmp_path: Path) -> None:
    from support.stood_in import environment_for

    gate, runtime_dir = tmp_path / "gate", Path(f"/tmp/rcy-{os.getpid()}")
    terminal = Terminal()
    environment = environment_for(str(runtime_dir), {"slow": DRAINING}, {"GATE": str(gate)})
    command = [*wrapper, sys.executable, "-m", "support.stand_in", "run", "--pool", "slow"]
    with subprocess.Popen(
        command,
        env=environment,
        stdin=terminal.theirs,
        stdout=terminal.theirs,
        stderr=terminal.theirs,
        preexec_fn=become_terminals_session,  # noqa: PLW1509  # the child of a test
    ) as process:
        try:
            wait_for(lambda: terminal.shows(b"slow | up"), "the worker is up")
            terminal.type(b"\x03")
            wait_for(lambda: terminal.shows(b"slow | draining"), "the worker was asked once, and drains")
            gate.touch()
            wait_for(lambda: terminal.shows(b"slow | drained"), "it drained")
            assert process.wait(20) == 0
        finally:
            process.kill()
