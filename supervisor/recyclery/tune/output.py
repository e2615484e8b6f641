"""A run, or two of them, on standard output: a table or JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from recyclery.tune.comparison import compare_runs, comparison_document, format_comparison
from recyclery.tune.evaluate import Judged
from recyclery.tune.page import write_page
from recyclery.tune.recommendation import Answer, Recommended, answer
from recyclery.tune.run_file import Recorded, read_run_file
from recyclery.tune.spec import Wishes
from recyclery.tune.statistics import quantile
from recyclery.tune.table import format_answer, seconds
from recyclery.tune.window import OpenWindow

VERSION = 1


def build_document(answer: Answer) -> dict[str, Any]:
    """Return the document."""
    return {
        "version": VERSION,
        "wishes": plain(answer.wishes),
        "limit_bytes": answer.limit_bytes,
        "levels": [level_document(judged) for judged in answer.levels],
        "recommended": recommended_document(answer.recommended) if answer.recommended else None,
        "reason": answer.reason,
        "fleet": plain(answer.fleet),
        "doubts": list(answer.doubts),
    }


def level_document(judged: Judged) -> dict[str, Any]:
    """Return a level: what was measured, what binds, and why it cannot be chosen."""
    measured = plain(judged.measured)
    binds = judged.binds if judged.measured.was_tried else None
    return {**measured.pop("level"), **measured, "binds": binds, "obstacle": judged.obstacle or None}


def recommended_document(recommended: Recommended) -> dict[str, Any]:
    """Return what to set."""
    return {
        **plain(recommended.level),
        "memory_limit_bytes": recommended.memory_limit_bytes,
        "conf": recommended.conf,
        "environment": recommended.environment,
    }


def plain(value: Any) -> Any:
    """Return a value's fields by name."""
    return msgspec.to_builtins(value)


def show(recorded: Recorded, wishes: Wishes, *, as_json: bool, page: Path | None) -> None:
    """Print what a run tells, and write its page where one is wanted."""
    found = answer(recorded.windows, wishes, recorded.learned if recorded.learned.steps else None)
    if page is not None:
        write_page(page, found)
    if as_json:
        document = build_document(found) | {
            "request": msgspec.to_builtins(recorded.request),
            "loads": [msgspec.to_builtins(window) for window in recorded.opened],
        }
        print_json(document)
        return
    print(format_answer(found))
    for line in describe_loads(recorded.opened):
        print(line)


def print_json(document: object) -> None:
    """Print a document in one line; a bound that is not known is null."""
    print(msgspec.json.encode(document).decode())


def describe_loads(opened: Iterable[OpenWindow]) -> list[str]:
    """Return a table of what came at its own times, and what became of it."""
    rows = [f"{'load':>8} {'came':>10}{'p50':>9}{'p95':>9}{'p99':>9}  not done half way, at the end"]
    for each in opened:
        took = [
            waited + ran
            for waited, ran in zip(each.window.waited_seconds, each.window.ran_seconds, strict=True)
        ]
        shares = "".join(f"{describe_share(took, share):>9}" for share in (0.50, 0.95, 0.99))
        rows.append(f"{each.load:>8} {each.offered_per_second:>8.3g}/s{shares}  {describe_backlog(each)}")
    told = "Tasks that came at their own times; p50, p95, p99 from when each was to come."
    return ["", *rows, "", told] if len(rows) > 1 else []


def describe_backlog(opened: OpenWindow) -> str:
    """Say what waited."""
    if opened.window.stopped:
        return f"given up: {opened.window.stopped}"
    waiting = f"{opened.backlog_middle}, {opened.backlog_end}"
    if opened.keeps_up:
        return waiting
    never = f", {opened.unfinished} never" if opened.unfinished else ""
    return f"{waiting}{never}: more than it can do"


def describe_share(values: list[float], share: float) -> str:
    """Return the time that so many do not pass; a dash where there are none."""
    return seconds(quantile(sorted(values), share)) if values else "-"


def compare(before: Path, after: Path, *, as_json: bool) -> None:
    """Print what two runs differ in; raises BadRunFile."""
    runs = read_run_file(before), read_run_file(after)
    asked = [(run.request.app, run.request.task, run.request.pool) for run in runs]
    if asked[0] != asked[1]:
        print(f"recyclery: they ran different tasks: {asked[0]} and {asked[1]}", file=sys.stderr)
    pairs = compare_runs(runs[0].windows, runs[1].windows)
    if as_json:
        print_json(comparison_document(pairs))
    else:
        print(format_comparison(pairs, (str(before), str(after))))
