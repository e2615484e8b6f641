"""Waits at a socket of our own for what the child that traces has to say."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recyclery.config.paths import find_runtime_dir, find_state_dir, history_file
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.history.reader import NoHistory, open_history
from recyclery.leaks.trace_output import TraceReport, format_trace, make_report
from recyclery.leaks.trace_target import Chosen, NotClear, choose_task
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


INTERRUPTED = 130


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    task: str
    pool: str | None
    runs: int
    warm_up: int
    timeout_seconds: float
    as_json: bool
    history: str | None


def trace_task(wanted: Wanted) -> int:
    """Trace and print; return 0 where all runs were seen, 1 where not, 130 when interrupted."""
    try:
        report = trace(find_runtime_dir(os.environ), find_task(wanted), wanted, say)
    except (NoHistory, NotClear, NoSupervisor, Declined, CannotListen, CutShort) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        say("stopped; the child traces no more, and leaves")
        return INTERRUPTED
    print(msgspec.json.format(msgspec.json.encode(report)).decode() if wanted.as_json else format_trace(report))
    if report.cut_short:
        print(f"recyclery: {report.cut_short}", file=sys.stderr)
        return 1
    return 0


def find_task(wanted: Wanted) -> Chosen:
    """Return the task that is meant; raises NotClear, or NoHistory where that has to tell."""
    path = Path(wanted.history) if wanted.history else history_file(find_state_dir(os.environ))
    try:
        with open_history(path) as history:
            return choose_task(history, wanted.task, wanted.pool)
    except NoHistory:
        if wanted.pool is None:
            raise
        return Chosen(wanted.pool, wanted.task, None)


def say(line: str) -> None:
    """Tell how far it is, beside what is printed in the end."""
    print(line, file=sys.stderr, flush=True)


def trace(runtime_dir: Path, chosen: Chosen, wanted: Wanted, say: Callable[[str], None]) -> TraceReport:
    """Have a child trace, and return what it saw; raises CutShort where that is nothing."""
    latest: TracedRuns | None = None
    with listening(runtime_dir) as listener:
        order = {
            "task": chosen.task,
            "runs": str(wanted.runs),
            "warm_up": str(wanted.warm_up),
            "address": listener.getsockname(),
        }
        asked = ask_governor(runtime_dir, "trace", table=chosen.pool, values=order)
        say(f"{chosen.pool}/{asked['pid']} is to trace{', once its task is done' if asked['task'] else ''}")
        try:
            for latest in follow(listener, asked["pid"], wanted.timeout_seconds):
                if not latest.over:
                    say(tell_progress(latest, wanted))
        except CutShort as end:
            if latest is None:
                raise
            return make_report(chosen, latest, str(end))
    assert latest is not None  # noqa: S101  # or it was cut short
    full = "" if len(latest.seconds) >= wanted.runs else "the record of allocations is as large as it may be"
    return make_report(chosen, latest, full)


def tell_progress(seen: TracedRuns, wanted: Wanted) -> str:
    """Say which run was seen last."""
    if seen.seconds and seen.tool == "memray" and len(seen.seconds) == wanted.runs:
        return (
            f"run {wanted.runs} of {wanted.runs}: {seen.seconds[-1]:.3g} s; what memray wrote down is read now"
        )
    if seen.seconds:
        return f"run {len(seen.seconds)} of {wanted.runs}: {seen.seconds[-1]:.3g} s"
    if seen.warm_up_seconds:
        return f"warm-up {len(seen.warm_up_seconds)} of {wanted.warm_up}: {seen.warm_up_seconds[-1]:.3g} s"
    return f"traces with {seen.tool}; waits for the task to run"
