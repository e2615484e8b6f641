"""`recyclery leaks`: reads the history, prints a table or JSON, or writes a page."""

import argparse
import os
import re
import sys
import time
from datetime import datetime
from pathlib import Path

import msgspec

from recyclery.common import exit_codes
from recyclery.config.paths import find_state_dir, history_file
from recyclery.history.reader import HistoryReader, NoHistory, open_history
from recyclery.leaks.report import build_leak_report
from recyclery.leaks.table import format_leaks, format_leaks_comparison, format_time

SECONDS_PER_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class BadTime(Exception):
    """A time that cannot be parsed; the message names the formats that can."""


def report_leaks(args: argparse.Namespace) -> int:
    """Print or write the report; return the exit code."""
    path = find_history(args)
    try:
        with open_history(path) as history:
            if args.compare:
                return compare_leaks(history, path, args, time.time())
            return print_leaks(history, path, args, time.time())
    except (BadTime, NoHistory) as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.WRONG_USAGE if isinstance(error, BadTime) else 1


def find_history(args: argparse.Namespace) -> Path:
    """Return the file given with --history, else the one in the state folder."""
    return Path(args.history) if args.history else history_file(find_state_dir(os.environ))


def print_leaks(history: HistoryReader, path: Path, args: argparse.Namespace, now: float) -> int:
    """Print the report, and write its page if one is wanted; raises BadTime."""
    since = parse_time(args.since, now) if args.since else 0.0
    report = build_leak_report(history, path, since, now + 1, args.task)
    if args.task and not report.tasks:
        print(f"recyclery: no task that ran has {args.task!r} in its name", file=sys.stderr)
        return 1
    if args.html:
        from recyclery.leaks.page import build_leaks_page  # noqa: PLC0415

        try:
            Path(args.html).write_text(build_leaks_page(history, report), encoding="utf-8")
        except OSError as error:
            print(f"recyclery: {args.html}: {error.strerror}", file=sys.stderr)
            return 1
    print(format_json(report) if args.json else format_leaks(report))
    return 0


def compare_leaks(history: HistoryReader, path: Path, args: argparse.Namespace, now: float) -> int:
    """Print the reports on A to B and on B until now side by side; raises BadTime."""
    if args.since:
        raise BadTime("--since does not go with --compare: the comparison begins at A")
    first, dots, second = args.compare.partition("..")
    if not dots or not first or not second:
        raise BadTime(f"--compare is {args.compare!r}: it must be two times, A..B, for A to B and B until now")
    begin, change = parse_time(first, now), parse_time(second, now)
    if begin >= change:
        raise BadTime(f"--compare is {args.compare!r}: A must be before B")
    spans = (begin, change), (change, now + 1)
    before, after = (build_leak_report(history, path, *span, args.task) for span in spans)
    titles = [f"{format_time(begin)} to {format_time(end)}" for begin, end in spans]
    both = {"before": before, "after": after}
    print(format_json(both) if args.json else format_leaks_comparison(before, after, titles))
    return 0


def format_json(document: object) -> str:
    """Return a document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(document)).decode()


def parse_time(text: str, now: float) -> float:
    """Return a time given as `2h` or `3d` ago, or in ISO 8601, local without a zone; raises BadTime."""
    text = text.strip()
    if ago := re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text):
        return now - float(ago[1]) * SECONDS_PER_UNIT[ago[2]]
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise BadTime(f"{text!r} is no time: write 90m, 2h or 3d (ago), or 2026-01-31T14:00") from None
