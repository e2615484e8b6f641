"""The report of a trace: its values, the names of functions, and the text for a terminal."""

from __future__ import annotations

import ast
import os
import sysconfig
import textwrap
from functools import cache
from itertools import takewhile
from pathlib import Path
from statistics import median

import msgspec

from recyclery.leaks.table import PAGE_WIDTH
from recyclery_worker.tracing.sites import Site, StackFrame

MARGIN = 23
# The frames below these are the same for all tasks.
TASK_CALLERS = ("celery/app/trace.py", "billiard/pool.py")
CALLERS_SHOWN = 5
SITES_SHOWN = 10


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
    """Return the report as text."""
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
