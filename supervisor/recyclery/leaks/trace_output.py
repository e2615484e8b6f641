"""Names the function in which a line stands: tracemalloc tells files and lines alone."""

from __future__ import annotations

import ast
import os
import sysconfig
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import msgspec

from recyclery.leaks.trace_target import Chosen
from recyclery_worker.tracing.sites import Frame, Site, TracedRuns

Span = tuple[int, int, str]


def function_at(file: str, line: int) -> str:
    """Return the name of the innermost function around a line; empty where there is none, or no source."""
    around = [span for span in functions_in(file) if span[0] <= line <= span[1]]
    return max(around)[2] if around else ""


@cache
def functions_in(file: str) -> tuple[Span, ...]:
    """Return a file's functions: first line, last line, name."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    return tuple(spans_of(tree))


def spans_of(tree: ast.AST) -> Iterator[Span]:
    """Yield each function's span."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.end_lineno or node.lineno, node.name


class TraceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one task in one child."""

    pool: str
    task: str
    pid: int
    tool: str
    runs: int
    """That were traced, without those to warm up."""
    judged: int
    """Of these, from how many the sites are told."""
    warm_up_seconds: list[float]
    seconds: list[float]
    usual_seconds: float | None
    """The median of the runs without tracing that the history knows; None where it knows none."""
    cut_short: str
    """Why there are fewer runs than were asked for; empty where there are not."""
    sites: list[Site]


def make_report(chosen: Chosen, seen: TracedRuns, cut_short: str) -> TraceReport:
    """Return the report, with the functions named."""
    return TraceReport(
        pool=chosen.pool,
        task=chosen.task,
        pid=seen.pid,
        tool=seen.tool,
        runs=len(seen.seconds),
        judged=seen.judged,
        warm_up_seconds=seen.warm_up_seconds,
        seconds=seen.seconds,
        usual_seconds=chosen.usual_seconds,
        cut_short=cut_short,
        sites=[
            msgspec.structs.replace(site, frames=[name_function(frame) for frame in site.frames])
            for site in seen.sites
        ],
    )


def name_function(frame: Frame) -> Frame:
    """Return a frame with its function's name, where that can be found."""
    if frame.function:
        return frame
    return Frame(frame.file, frame.line, function_at(frame.file, frame.line))


WIDTH = 80
MARGIN = 23
# What a task is called by: below it the frames are the same for all.
CALLERS = ("celery/app/trace.py", "billiard/pool.py")
CALLERS_SHOWN = 5
SITES_SHOWN = 10
HEAD = f"{'per run':>10} {'blocks':>6} {'in':>4} where"


def format_trace(report: TraceReport) -> str:
    """Return the page."""
    lines = [*textwrap.wrap(describe(report), WIDTH), ""]
    if report.sites:
        lines += [HEAD]
        for site in report.sites[:SITES_SHOWN]:
            lines += format_site(site, report.judged)
        lines += ["", *textwrap.wrap(sum_up(report), WIDTH)]
    else:
        lines += textwrap.wrap(explain_nothing(report), WIDTH)
    return "\n".join(lines)


def describe(report: TraceReport) -> str:
    """Say what was traced, and what it cost."""
    traced = f"{report.pool}/{report.pid}: {report.runs} runs of {report.task}, traced with {report.tool}"
    if not report.seconds:
        return f"{traced}."
    took = median(report.seconds)
    if report.usual_seconds is None:
        return f"{traced}: {took:.3g} s each."
    times = took / report.usual_seconds
    return f"{traced}: {took:.3g} s each, untraced {report.usual_seconds:.3g} s, {times:.1f} times as long."


def sum_up(report: TraceReport) -> str:
    """Say how much all sites hold together, and how they were told from others."""
    whole = size(sum(site.bytes_per_run for site in report.sites))
    rest = len(report.sites) - SITES_SHOWN
    more = f" ({rest} more: --json)" if rest > 0 else ""
    return (
        f"{whole} per run together{more}, still held after the run. blocks: allocations held. "
        f"in: of {report.judged} runs, in how many it grew; what grew in half of them or fewer is left out."
    )


def explain_nothing(report: TraceReport) -> str:
    """Say what it means that no site grew."""
    if not report.judged:
        return "No run was judged, so no site can be named." + (
            " memray's record is read in the end." if report.tool == "memray" else ""
        )
    if report.tool == "memray":
        return "No site grew in most of the runs: what the task leaves is not in this process's own memory."
    return (
        "No site grew in most of the runs: what the task leaves was not allocated by Python. "
        "Where memray is installed (pip install memray), native libraries are traced too."
    )


def format_site(site: Site, judged: int) -> list[str]:
    """Return a site's line, and those of the code that called it."""
    first, *callers = [place(frame) for frame in task_frames(site)] or ["?"]
    head = f"{size(site.bytes_per_run):>10} {site.count_per_run:>6g} {f'{site.grew_in}/{judged}':>4} "
    return [head + first, *(" " * MARGIN + caller for caller in callers)]


def task_frames(site: Site) -> list[Frame]:
    """Return the frames worth showing: the allocation, and the nearest callers that are the user's own."""
    frames = list(until_celery(site.frames)) or site.frames[:1]
    callers = [frame for frame in frames[1:] if is_own(frame.file)] or frames[1:]
    return [*frames[:1], *callers[:CALLERS_SHOWN]]


def until_celery(frames: list[Frame]) -> Iterator[Frame]:
    """Yield the frames down to where Celery calls the task."""
    for frame in frames:
        if frame.file.endswith(CALLERS):
            return
        yield frame


def is_own(file: str) -> bool:
    """Tell whether a file is neither Python's nor an installed package's."""
    return not file.startswith((*library_folders(), "<"))


def library_folders() -> tuple[str, ...]:
    """Return the folders of installed packages and of Python itself, the inner ones first."""
    paths = sysconfig.get_paths()
    return tuple(f"{paths[name]}/" for name in ("purelib", "platlib", "stdlib"))


def place(frame: Frame) -> str:
    """Return a frame in words that fit the line: what is cut off is the front."""
    file = frame.file
    for folder in (*library_folders(), f"{Path.cwd()}{os.sep}"):
        file = file.removeprefix(folder)
    words = f"{file}:{frame.line}" + (f" {frame.function}" if frame.function else "")
    room = WIDTH - MARGIN
    return words if len(words) <= room else f"…{words[1 - room :]}"


def size(count: float) -> str:
    """Return a size in the unit that suits it."""
    if count >= 100 << 10:
        return f"{count / (1 << 20):.2f} MiB"
    return f"{count / (1 << 10):.1f} KiB"
