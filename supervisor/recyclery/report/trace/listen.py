"""Waits at a socket of our own for what the child that traces has to say."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from recyclery_worker.tracing.sites import TracedRuns, decode_runs

LOOK_EVERY_SECONDS = 0.5
READ_BYTES = 1 << 16


class CutShort(Exception):
    """The tracing ended before its last run; the message says why."""


class CannotListen(Exception):
    """No socket can be had; the message says why."""


@contextmanager
def listening(runtime_dir: Path) -> Iterator[socket.socket]:
    """Listen in the runtime folder until the block ends; raises CannotListen."""
    path = runtime_dir / f"trace-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            # The supervisor's user may be another one than ours, who may then be root.
            os.chown(path, runtime_dir.stat().st_uid, -1)
            listener.listen(1)
        except OSError as error:
            raise CannotListen(f"{path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def follow(listener: socket.socket, pid: int, seconds: float) -> Iterator[TracedRuns]:
    """Yield what the child `pid` has seen, after each run; raises CutShort where the last is not the end."""
    deadline = time.monotonic() + seconds
    with wait_for_child(listener, pid, deadline) as child:
        rest = b""
        while True:
            wait_for(child, deadline)
            read = child.recv(READ_BYTES)
            if not read:
                raise CutShort(f"child {pid} {'left' if is_running(pid) else 'died'} before the last run")
            *lines, rest = (rest + read).split(b"\n")
            for line in lines:
                try:
                    seen = decode_runs(line)
                except msgspec.DecodeError as error:
                    raise CutShort(f"child {pid} said what cannot be read: {error}") from None
                yield seen
                if seen.over:
                    return


def wait_for_child(listener: socket.socket, pid: int, deadline: float) -> socket.socket:
    """Return the connection that the child makes when it begins; raises CutShort where it does not."""
    while not select.select([listener], [], [], LOOK_EVERY_SECONDS)[0]:
        if not is_running(pid):
            raise CutShort(f"child {pid} died before it began to trace")
        if time.monotonic() > deadline:
            raise CutShort(f"child {pid} did not begin to trace in time: it is still at another task")
    child, _ = listener.accept()
    return child


def wait_for(child: socket.socket, deadline: float) -> None:
    """Wait until there is something to read; raises CutShort where that is not in time."""
    if not select.select([child], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise CutShort("the task did not run often enough in time: raise --timeout, or have it run")


def is_running(pid: int) -> bool:
    """Tell whether a process is there."""
    return Path(f"/proc/{pid}").exists()
