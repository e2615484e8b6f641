"""`recyclery leaks`: which task leaves how much memory where, told from the history.

Its arguments; what answers is imported only then.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be asked."""
    parser.add_argument("--since", metavar="TIME", help="only runs since: 90m, 2h, 3d ago, or 2026-01-31T14:00")
    parser.add_argument("--task", default="", metavar="NAME", help="only tasks with this in their name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--compare", metavar="A..B", help="from A to B beside from B until now, as for a deploy")
    what.add_argument("--html", metavar="FILE", help="write a page with plots as well")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--history", metavar="FILE", help="default: history.db in the state folder")


def main(args: argparse.Namespace) -> int:
    """Answer; return the exit code."""
    from recyclery.report.leaks.command import Wanted, report_leaks  # noqa: PLC0415

    return report_leaks(
        Wanted(
            as_json=args.json,
            html=args.html,
            since=args.since,
            task=args.task,
            compare=args.compare,
            history=args.history,
        )
    )
