"""`recyclery leaks`: reads the history, prints a table, JSON, or writes a page."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from recyclery.common import exit_codes
from recyclery.config.paths import find_state_dir, history_file
from recyclery.history.reader import History, NoHistory, open_history
from recyclery.leaks.report import gather
from recyclery.leaks.table import format_comparison, format_report, moment

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BadTime(Exception):
    """A time that cannot be read; the message says what can."""


@dataclass(frozen=True)
class Wanted:
    """What was asked for on the command line."""

    as_json: bool = False
    html: str | None = None
    since: str | None = None
    task: str = ""
    compare: str | None = None
    history: str | None = None


def report_leaks(wanted: Wanted) -> int:
    """Print or write the report; return the exit code."""
    path = Path(wanted.history) if wanted.history else history_file(find_state_dir(os.environ))
    try:
        with open_history(path) as history:
            return answer(history, path, wanted, time.time())
    except BadTime as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.WRONG_USAGE
    except NoHistory as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return 1


def answer(history: History, path: Path, wanted: Wanted, now: float) -> int:
    """Give what was asked for."""
    if wanted.compare:
        return compare(history, path, wanted, now)
    since = read_time(wanted.since, now) if wanted.since else 0.0
    report = gather(history, path, since, now + 1, wanted.task)
    if wanted.task and not report.tasks:
        print(f"recyclery: no task that ran has {wanted.task!r} in its name", file=sys.stderr)
        return 1
    if wanted.html:
        from recyclery.leaks.page import write_page  # noqa: PLC0415

        try:
            write_page(Path(wanted.html), history, report)
        except OSError as error:
            print(f"recyclery: {wanted.html}: {error.strerror}", file=sys.stderr)
            return 1
    print(
        msgspec.json.format(msgspec.json.encode(report)).decode() if wanted.as_json else format_report(report)
    )
    return 0


def compare(history: History, path: Path, wanted: Wanted, now: float) -> int:
    """Print two stretches of time side by side; raises BadTime."""
    if wanted.since:
        raise BadTime("--since has no say beside --compare: A is where that begins")
    spans = read_spans(wanted.compare or "", now)
    before, after = (gather(history, path, begin, end, wanted.task) for begin, end in spans)
    if wanted.as_json:
        print(msgspec.json.format(msgspec.json.encode({"before": before, "after": after})).decode())
    else:
        first, second = (f"{moment(begin)} to {moment(end)}" for begin, end in spans)
        print(format_comparison(before, after, (first, second)))
    return 0


def read_spans(text: str, now: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the two stretches that `A..B` means: A to B, and B until now; raises BadTime."""
    first, dots, second = text.partition("..")
    if not dots or not first or not second:
        raise BadTime(f"--compare is {text!r}: it must be two times, A..B, for A to B beside B until now")
    begin, change = read_time(first, now), read_time(second, now)
    if begin >= change:
        raise BadTime(f"--compare is {text!r}: A must be before B")
    return (begin, change), (change, now + 1)


def read_time(text: str, now: float) -> float:
    """Return a time: `2h` or `3d` ago, or an ISO 8601 one, local where it has no zone; raises BadTime."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if ago:
        return now - float(ago[1]) * UNITS[ago[2]]
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        raise BadTime(
            f"{text!r} is no time: write 90m, 2h or 3d for so long ago, or 2026-01-31T14:00"
        ) from None
