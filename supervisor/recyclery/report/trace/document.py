"""What a tracing has found, as `--json` prints it."""

from __future__ import annotations

import msgspec

from recyclery.report.trace.choose import Chosen
from recyclery.report.trace.functions import function_at
from recyclery_worker.tracing.sites import Frame, Site, TracedRuns


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
