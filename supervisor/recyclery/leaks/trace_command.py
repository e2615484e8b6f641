"""`recyclery leaks --trace`: has a child trace a task's allocations, receives its results, and prints them."""

import argparse
import ast
import os
import select
import socket
import sys
import sysconfig
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path
from statistics import median

import msgspec

from recyclery.common.exit_codes import INTERRUPTED, fail
from recyclery.config.paths import find_runtime_dir
from recyclery.control.client import Declined, NoSupervisor, ask_governor
from recyclery.history.reader import HistoryReader, NoHistory, open_history
from recyclery.leaks.command import find_history, format_json
from recyclery.leaks.table import PAGE_WIDTH
from recyclery_worker.tracing.sites import Site, StackFrame, TracedRuns

CHILD_CHECK_SECONDS = 0.5
RECEIVE_BYTES = 1 << 16
# The newest runs of a pool, which show how long its tasks take now.
LATEST_RUNS = 2000
FOREVER = 1e11
MARGIN = 23
# The frames below these are the same for all tasks.
TASK_CALLERS = ("celery/app/trace.py", "billiard/pool.py")
CALLERS_SHOWN = 5
SITES_SHOWN = 10


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


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one task in one child."""

    pool: str
    task: str
    pid: int
    tool: str
    runs: int
    """Traced runs, without the warm-up."""
    judged: int
    """How many of these the sites are from."""
    warm_up_seconds: list[float]
    seconds: list[float]
    usual_seconds: float | None
    """The median of the untraced runs in the history; None without any."""
    cut_short: str
    """Why there are fewer runs than requested; empty if there are not."""
    sites: list[Site]


def trace_task(args: argparse.Namespace) -> int:
    """Trace and print; return 0 if all runs were traced, 1 if not, 130 when interrupted."""
    try:
        report = run_trace(find_runtime_dir(os.environ), find_chosen(args), args)
    except (NoHistory, NoSupervisor, Declined, CannotTrace, CutShort) as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        print_progress("stopped; the child traces no more, and exits")
        return INTERRUPTED
    print(format_json(report) if args.json else format_trace(report))
    return fail(report.cut_short, 1) if report.cut_short else 0


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


def function_at(file: str, line: int) -> str:
    """Return the innermost function around a line; empty if there is none, or no source."""
    around = [(first, last, name) for first, last, name in functions_in(file) if first <= line <= last]
    return max(around)[2] if around else ""


@cache
def functions_in(file: str) -> tuple[tuple[int, int, str], ...]:
    """Return a file's functions: first line, last line, name."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(
        (node.lineno, node.end_lineno or node.lineno, node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )


def format_trace(report: TraceReport) -> str:
    lines = [*textwrap.wrap(describe_trace(report), PAGE_WIDTH), ""]
    if not report.sites:
        return "\n".join([*lines, *textwrap.wrap(explain_no_sites(report), PAGE_WIDTH)])
    lines.append(f"{'per run':>10} {'blocks':>6} {'in':>4} where")
    for site in report.sites[:SITES_SHOWN]:
        first, *callers = map(format_frame, visible_frames(site)) if site.frames else ["?"]
        grew = f"{site.grew_in}/{report.judged}"
        lines.append(f"{format_kib(site.bytes_per_run):>10} {site.count_per_run:>6g} {grew:>4} {first}")
        lines += [" " * MARGIN + caller for caller in callers]
    total = format_kib(sum(site.bytes_per_run for site in report.sites))
    hidden = len(report.sites) - SITES_SHOWN
    more = f" ({hidden} more: --json)" if hidden > 0 else ""
    legend = (
        f"{total} per run together{more}, still held after the run. blocks: allocations held. "
        f"in: of {report.judged} runs, in how many it grew; what grew in half of them or fewer is left out."
    )
    return "\n".join([*lines, "", *textwrap.wrap(legend, PAGE_WIDTH)])


def describe_trace(report: TraceReport) -> str:
    """Return what was traced, and how much slower that was."""
    traced = f"{report.pool}/{report.pid}: {report.runs} runs of {report.task}, traced with {report.tool}"
    if not report.seconds:
        return f"{traced}."
    seconds = median(report.seconds)
    if report.usual_seconds is None:
        return f"{traced}: {seconds:.3g} s each."
    times = seconds / report.usual_seconds
    return f"{traced}: {seconds:.3g} s each, untraced {report.usual_seconds:.3g} s, {times:.1f} times as long."


def explain_no_sites(report: TraceReport) -> str:
    """Return what it means that no site grew."""
    if not report.judged:
        reason = " memray's record is read only after the last run." if report.tool == "memray" else ""
        return f"No run was judged, so no site can be named.{reason}"
    if report.tool == "memray":
        return "No site grew in most of the runs: what the task leaves is not in this process's own memory."
    return (
        "No site grew in most of the runs: what the task leaves was not allocated by Python. "
        "Where memray is installed (pip install memray), native libraries are traced too."
    )


def visible_frames(site: Site) -> list[StackFrame]:
    """Return the allocation, and the nearest callers in the user's own code."""
    to_celery = takewhile(lambda frame: not frame.file.endswith(TASK_CALLERS), site.frames)
    frames = list(to_celery) or site.frames[:1]
    own = [frame for frame in frames[1:] if not frame.file.startswith((*library_folders(), "<"))]
    return [*frames[:1], *(own or frames[1:])[:CALLERS_SHOWN]]


def library_folders() -> tuple[str, ...]:
    """Return the folders of installed packages and of Python, inner ones first."""
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("purelib", "platlib", "stdlib"))


def format_frame(frame: StackFrame) -> str:
    """Return a frame, cut at its front if it does not fit in the line."""
    file = frame.file
    for folder in (*library_folders(), f"{Path.cwd()}{os.sep}"):
        file = file.removeprefix(folder)
    text = f"{file}:{frame.line} {frame.function}".rstrip()
    width = PAGE_WIDTH - MARGIN
    return text if len(text) <= width else f"…{text[1 - width :]}"


def format_kib(size_bytes: float) -> str:
    """Return a size in KiB, or in MiB from 0.1 MiB on."""
    return f"{size_bytes / (1 << 20):.2f} MiB" if size_bytes >= 100 << 10 else f"{size_bytes / 1024:.1f} KiB"
