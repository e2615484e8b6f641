"""The options of `recyclery tune`. Imported by every command, PID 1 among them: nothing more is."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")
    parser.add_argument(
        "--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one"
    )
    parser.add_argument("--pool", metavar="NAME", help="the pool whose settings are tuned")
    parser.add_argument("--task", metavar="NAME", help="the task to run, by the name that the app knows it by")
    calls = parser.add_mutually_exclusive_group()
    calls.add_argument(
        "--args",
        metavar="FILE",
        help='JSON lines to call it with, each [...] or {"args": [...], "kwargs": {...}}',
    )
    calls.add_argument("--generate", metavar="MODULE:FUNC", help="or a function that yields such")
    add_levels(parser)
    add_wishes(parser)
    add_files(parser)


def add_levels(parser: argparse.ArgumentParser) -> None:
    """Add what says which levels are measured, and how long."""
    parser.add_argument(
        "--concurrency", metavar="N,N...", help="levels to try (1,2,4,8,16, as far as each brings more)"
    )
    parser.add_argument("--max-tasks-per-child", metavar="N,N...", help="likewise (what the pool has)")
    parser.add_argument(
        "--repeats",
        metavar="N",
        help="windows for each level (3, and more for levels near the best until they are told apart)",
    )
    parser.add_argument("--seconds", metavar="N", help="a window's least length (10)")
    parser.add_argument(
        "--longest", metavar="SECONDS", help="what it may take to recycle each child once (300)"
    )
    parser.add_argument("--seed", metavar="N", help="for the order of the windows and the arrivals")
    parser.add_argument(
        "--memory", metavar="SIZE", help="the memory limit to tune for, such as 2GiB (the container's)"
    )


def add_wishes(parser: argparse.ArgumentParser) -> None:
    """Add what is wanted of the answer."""
    parser.add_argument("--objective", choices=("throughput", "latency"), default="throughput")
    parser.add_argument("--slo", metavar="SECONDS", help="95 %% of the tasks are to be done in so long")
    parser.add_argument(
        "--rate",
        metavar="RATE",
        action="append",
        default=[],
        help="how many tasks come, such as 2/s or 30/min: how many containers that needs, and what the "
        "level recommended does with it; or a share of what that can do, such as 85%%; may be repeated",
    )
    parser.add_argument(
        "--trace", metavar="FILE", help="arrivals as `recyclery trace record` wrote them, at 70, 85 and 95 %%"
    )


def add_files(parser: argparse.ArgumentParser) -> None:
    """Add where a run is kept and shown."""
    parser.add_argument("--out", metavar="FILE", help="the run, to resume or to compare (tune-POOL-TIME.jsonl)")
    parser.add_argument("--resume", metavar="FILE", help="go on with a run that was stopped, or show one again")
    parser.add_argument("--compare", metavar="FILE", nargs=2, help="show what two runs differ in")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--html", metavar="FILE", help="write a page with the curves")
