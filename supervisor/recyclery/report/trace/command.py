"""`recyclery leaks --trace TASK`: has a child trace a task, waits for its runs, prints the sites that grew."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recyclery.config.paths import find_runtime_dir, find_state_dir, history_file
from recyclery.history.reading import NoHistory, open_history
from recyclery.report.trace.choose import Chosen, NotClear, choose_task
from recyclery.report.trace.document import TraceReport, make_report
from recyclery.report.trace.listen import CannotListen, CutShort, follow, listening
from recyclery.report.trace.table import format_trace
from recyclery.serve.client import Declined, NoSupervisor, ask_governor
from recyclery_worker.tracing.sites import TracedRuns

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
