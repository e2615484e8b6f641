"""`recyclery leaks`: which task leaves how much memory where, told from the history.

Its arguments; what answers is imported only then.
"""

from __future__ import annotations

import argparse
import sys

# Of a tracing, where nothing else is said.
RUNS = 5
WARM_UP = 1
TIMEOUT_SECONDS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be asked."""
    parser.add_argument("--since", metavar="TIME", help="only runs since: 90m, 2h, 3d ago, or 2026-01-31T14:00")
    parser.add_argument("--task", default="", metavar="NAME", help="only tasks with this in their name")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--compare", metavar="A..B", help="from A to B beside from B until now, as for a deploy")
    what.add_argument("--html", metavar="FILE", help="write a page with plots as well")
    what.add_argument(
        "--trace", metavar="TASK", help="have one child of the running pool trace a task's allocations"
    )
    parser.add_argument("--runs", type=positive, metavar="N", help=f"of the traced task ({RUNS})")
    parser.add_argument("--warm-up", type=positive, metavar="N", help=f"before those ({WARM_UP})")
    parser.add_argument(
        "--timeout", type=positive, metavar="SECONDS", help=f"for the traced runs to come ({TIMEOUT_SECONDS})"
    )
    parser.add_argument("--pool", metavar="POOL", help="in which to trace, where the task runs in several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--history", metavar="FILE", help="default: history.db in the state folder")


def positive(text: str) -> int:
    """Return a number above nought; raises ArgumentTypeError."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")


def main(args: argparse.Namespace) -> int:
    """Answer; return the exit code."""
    if args.trace is not None:
        return trace(args)
    for_tracing = {name: getattr(args, name) for name in ("runs", "warm_up", "timeout", "pool")}
    if stray := [name for name, value in for_tracing.items() if value is not None]:
        print(f"recyclery: --{stray[0].replace('_', '-')} goes with --trace TASK", file=sys.stderr)
        return 2
    from recyclery.leaks.command import Wanted, report_leaks  # noqa: PLC0415

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


def trace(args: argparse.Namespace) -> int:
    """Trace a task; return the exit code."""
    from recyclery.leaks.trace_command import Wanted, trace_task  # noqa: PLC0415

    if args.since or args.task:
        print("recyclery: --since and --task have no say beside --trace TASK", file=sys.stderr)
        return 2
    return trace_task(
        Wanted(
            task=args.trace,
            pool=args.pool,
            runs=args.runs or RUNS,
            warm_up=args.warm_up or WARM_UP,
            timeout_seconds=float(args.timeout or TIMEOUT_SECONDS),
            as_json=args.json,
            history=args.history,
        )
    )
