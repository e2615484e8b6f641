"""`recyclery leaks --trace`: has a child trace a task's allocations, and receives its results at a socket."""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec

from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.history.reader import HistoryReader, NoHistory, open_history
from recyclery.leaks.command import find_history, format_json
from recyclery.leaks.trace_output import TraceReport, format_trace, function_at
from recyclery_worker.tracing.sites import Site, StackFrame, TracedRuns

CHILD_CHECK_SECONDS = 0.5
RECEIVE_BYTES = 1 << 16
# The newest runs of a pool, which show how long its tasks take now.
LATEST_RUNS = 2000
FOREVER = 1e11


class CutShort(Exception):
    """The trace ended before its last run; the message says why."""


class CannotTrace(Exception):
    """The task is ambiguous, or the socket cannot be opened; the message says why."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """One task of one pool, and how long it takes untraced; None if that is not known."""

    pool: str
    task: str
    usual_seconds: float | None


def trace_task(args: argparse.Namespace) -> int:
    """Trace and print; return 0 if all runs were traced, 1 if not, 130 when interrupted."""
    try:
        report = run_trace(find_runtime_dir(os.environ), find_chosen(args), args)
    except (NoHistory, NoSupervisor, Declined, CannotTrace, CutShort) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print_progress("stopped; the child traces no more, and exits")
        return 128 + signal.SIGINT
    print(format_json(report) if args.json else format_trace(report))
    if report.cut_short:
        print(f"recyclery: {report.cut_short}", file=sys.stderr)
        return 1
    return 0


def find_chosen(args: argparse.Namespace) -> Chosen:
    """Return the task to trace; raises CannotTrace, and NoHistory if that is needed to find its pool."""
    try:
        with open_history(find_history(args)) as history:
            return choose_task(history, args.trace, args.pool)
    except NoHistory:
        if args.pool is None:
            raise
        return Chosen(args.pool, args.trace, None)


def choose_task(history: HistoryReader, name: str, pool: str | None) -> Chosen:
    """Return the task with this name, else the one whose name contains it; raises CannotTrace."""
    runs = {at: history.runs(at, 0.0, FOREVER, LATEST_RUNS) for at in history.pools() if pool in {None, at}}
    # The totals lack the latest runs.
    latest = {(at, task) for at, latest in runs.items() for run in latest for task in run.tasks}
    ran = sorted((at, task) for at, task in latest | history.totals().keys() if task and pool in {None, at})
    found = [(at, task) for at, task in ran if task == name] or [(at, task) for at, task in ran if name in task]
    if not found and pool is not None:
        # It may be about to run for the first time: the pool's worker knows all task names.
        return Chosen(pool, name, None)
    if not found:
        known = ", ".join(sorted({task for _, task in ran})) or "none yet"
        raise CannotTrace(
            f"no task that ran has {name!r} in its name: there are {known}; "
            "one that has not run yet is traced by its full name, with --pool"
        )
    if len(names := sorted({task for _, task in found})) > 1:
        raise CannotTrace(f"{name!r} may be {', '.join(names)}: name one of them")
    if len(found) > 1:
        raise CannotTrace(f"{names[0]} ran in {', '.join(at for at, _ in found)}: name one with --pool")
    ((at, task),) = found
    # Short runs are recorded together, so their single times are not known.
    seconds = [
        run.seconds
        for run in runs.get(at, ())
        if run.tasks == {task: 1} and run.outcome == "done" and run.seconds > 0
    ]
    return Chosen(at, task, median(seconds) if seconds else None)


def run_trace(runtime_dir: Path, chosen: Chosen, args: argparse.Namespace) -> TraceReport:
    """Have a child trace, and return what it found; raises CutShort if that is nothing."""
    latest: TracedRuns | None = None
    cut_short = ""
    with listening(runtime_dir) as listener:
        values = {
            "task": chosen.task,
            "runs": str(args.runs),
            "warm_up": str(args.warm_up),
            "address": listener.getsockname(),
        }
        child = ask_governor(runtime_dir, "trace", table=chosen.pool, values=values)
        after = ", once its task is done" if child["task"] else ""
        print_progress(f"{chosen.pool}/{child['pid']} is to trace{after}")
        try:
            for latest in receive_runs(listener, child["pid"], args.timeout):
                if not latest.over:
                    print_progress(format_trace_progress(latest, args.runs, args.warm_up))
        except CutShort as error:
            if latest is None:
                raise
            cut_short = str(error)
    assert latest is not None  # noqa: S101  # else it was cut short
    if not cut_short and len(latest.seconds) < args.runs:
        cut_short = "the record of allocations has reached its maximum size"
    return build_trace_report(chosen, latest, cut_short)


@contextmanager
def listening(runtime_dir: Path) -> Iterator[socket.socket]:
    """Listen in the runtime folder until the block ends; raises CannotTrace."""
    path = runtime_dir / f"trace-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as listener:
        try:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            path.chmod(0o600)
            # This command may run as root, the supervisor as another user.
            os.chown(path, runtime_dir.stat().st_uid, -1)
            listener.listen(1)
        except OSError as error:
            raise CannotTrace(f"{path}: {error.strerror or error}") from None
        try:
            yield listener
        finally:
            path.unlink(missing_ok=True)


def receive_runs(listener: socket.socket, pid: int, seconds: float) -> Iterator[TracedRuns]:
    """Yield what the child has found, after each run; raises CutShort if it ends before the last one."""
    deadline = time.monotonic() + seconds
    with accept_child(listener, pid, deadline) as child:
        rest = b""
        while True:
            if not select.select([child], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise CutShort("the task did not run often enough in time: raise --timeout, or have it run")
            received = child.recv(RECEIVE_BYTES)
            if not received:
                raise CutShort(f"child {pid} {'left' if is_child_alive(pid) else 'died'} before the last run")
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                try:
                    traced = msgspec.json.decode(line, type=TracedRuns)
                except msgspec.DecodeError as error:
                    raise CutShort(f"child {pid} sent an invalid message: {error}") from None
                yield traced
                if traced.over:
                    return


def accept_child(listener: socket.socket, pid: int, deadline: float) -> socket.socket:
    """Return the child's connection, which it opens when it begins; raises CutShort if it does not."""
    while not select.select([listener], [], [], CHILD_CHECK_SECONDS)[0]:
        if not is_child_alive(pid):
            raise CutShort(f"child {pid} died before it began to trace")
        if time.monotonic() > deadline:
            raise CutShort(f"child {pid} did not begin to trace in time: it is still at another task")
    child, _ = listener.accept()
    return child


def is_child_alive(pid: int) -> bool:
    """Return whether the process exists."""
    return Path(f"/proc/{pid}").exists()


def build_trace_report(chosen: Chosen, traced: TracedRuns, cut_short: str) -> TraceReport:
    """Return the report, with functions named: tracemalloc knows only files and lines."""

    def with_functions(site: Site) -> Site:
        frames = [
            StackFrame(frame.file, frame.line, frame.function or function_at(frame.file, frame.line))
            for frame in site.frames
        ]
        return msgspec.structs.replace(site, frames=frames)

    return TraceReport(
        pool=chosen.pool,
        task=chosen.task,
        pid=traced.pid,
        tool=traced.tool,
        runs=len(traced.seconds),
        judged=traced.judged,
        warm_up_seconds=traced.warm_up_seconds,
        seconds=traced.seconds,
        usual_seconds=chosen.usual_seconds,
        cut_short=cut_short,
        sites=list(map(with_functions, traced.sites)),
    )


def print_progress(line: str) -> None:
    """Print a line to stderr; stdout gets only the report."""
    print(line, file=sys.stderr, flush=True)


def format_trace_progress(traced: TracedRuns, runs: int, warm_up: int) -> str:
    """Return which run was traced last."""
    if traced.seconds:
        done = f"run {len(traced.seconds)} of {runs}: {traced.seconds[-1]:.3g} s"
        is_last = traced.tool == "memray" and len(traced.seconds) == runs
        return f"{done}; what memray wrote down is read now" if is_last else done
    if traced.warm_up_seconds:
        return f"warm-up {len(traced.warm_up_seconds)} of {warm_up}: {traced.warm_up_seconds[-1]:.3g} s"
    return f"traces with {traced.tool}; waits for the task to run"
