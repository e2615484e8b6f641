"""`recyclery leaks`: which task leaves how much memory where. Its arguments; the rest is imported lazily."""

import argparse
import sys

# Defaults for a trace.
RUNS = 5
WARM_UP = 1
TIMEOUT_SECONDS = 600


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("--since", metavar="TIME", help="only runs since then: 90m, 2h, 3d (ago), or 2026-01-31T14:00")
    add("--task", default="", metavar="NAME", help="only tasks with this in their name")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--compare", metavar="A..B", help="compare A to B with B until now, as before and after a deploy"
    )
    mode.add_argument("--html", metavar="FILE", help="also write a page with charts")
    mode.add_argument(
        "--trace", metavar="TASK", help="trace a task's allocations in one child of the running pool"
    )
    add("--runs", type=positive, metavar="N", help=f"with --trace: runs to trace (default {RUNS})")
    add("--warm-up", type=positive, metavar="N", help=f"with --trace: runs before these (default {WARM_UP})")
    add(
        "--timeout",
        type=positive,
        metavar="SECONDS",
        help=f"with --trace: seconds to wait (default {TIMEOUT_SECONDS})",
    )
    add("--pool", metavar="POOL", help="with --trace: the pool, if the task runs in several")
    add("--json", action="store_true", help="print one JSON object")
    add("--history", metavar="FILE", help="default: history.db in the state folder")


def positive(text: str) -> int:
    """Return a whole number above 0; raises ArgumentTypeError."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, 1 or more")


def main(args: argparse.Namespace) -> int:
    """Run the command; return the exit code."""
    if args.trace is not None:
        if args.since or args.task:
            print("recyclery: --since and --task do not go with --trace TASK", file=sys.stderr)
            return 2
        from recyclery.leaks.trace_command import trace_task  # noqa: PLC0415

        args.runs, args.warm_up = args.runs or RUNS, args.warm_up or WARM_UP
        args.timeout = args.timeout or TIMEOUT_SECONDS
        return trace_task(args)
    if stray := [name for name in ("runs", "warm_up", "timeout", "pool") if getattr(args, name) is not None]:
        print(f"recyclery: --{stray[0].replace('_', '-')} goes with --trace TASK", file=sys.stderr)
        return 2
    from recyclery.leaks.command import report_leaks  # noqa: PLC0415

    return report_leaks(args)
