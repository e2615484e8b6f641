"""The options of `recyclery tune`. Every command imports this module, PID 1 among them: it stays this small."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")
    parser.add_argument(
        "--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one"
    )
    parser.add_argument("--pool", metavar="NAME", help="the pool whose settings are tuned")
    parser.add_argument("--task", metavar="NAME", help="the task to run, by its name in the app")
    calls = parser.add_mutually_exclusive_group()
    calls.add_argument(
        "--args",
        metavar="FILE",
        help='JSON lines to call it with, each [...] or {"args": [...], "kwargs": {...}}',
    )
    calls.add_argument("--generate", metavar="MODULE:FUNC", help="or a function that yields such")

    levels = parser.add_argument_group("what is measured, and for how long")
    levels.add_argument(
        "--concurrency", metavar="N,N...", help="levels to try (1,2,4,8,16, as far as each brings more)"
    )
    levels.add_argument("--max-tasks-per-child", metavar="N,N...", help="likewise (what the pool has)")
    levels.add_argument(
        "--repeats", metavar="N", help="windows of each level (3, and up to 10 of levels near the best)"
    )
    levels.add_argument("--seconds", metavar="N", help="a window's least length (10)")
    levels.add_argument(
        "--longest", metavar="SECONDS", help="a window's greatest length, until each child was recycled (300)"
    )
    levels.add_argument("--seed", metavar="N", help="for the order of the windows and random arrivals")
    levels.add_argument(
        "--memory", metavar="SIZE", help="the memory limit to tune for, such as 2GiB (the container's)"
    )

    objective = parser.add_argument_group("what the level has to meet")
    objective.add_argument("--objective", choices=("throughput", "latency"), default="throughput")
    objective.add_argument("--slo", metavar="SECONDS", help="95 %% of the tasks have to be done in this time")
    objective.add_argument(
        "--rate",
        metavar="RATE",
        action="append",
        default=[],
        help="how many tasks arrive, such as 2/s or 30/min: how many containers that needs, and how the "
        "recommended level copes; or a share of its capacity, such as 85%%; may be repeated",
    )
    objective.add_argument(
        "--trace", metavar="FILE", help="arrivals as `recyclery trace record` wrote them, at 70, 85 and 95 %%"
    )

    files = parser.add_argument_group("where a run is kept and shown")
    files.add_argument("--out", metavar="FILE", help="the run, to resume or to compare (tune-POOL-TIME.jsonl)")
    files.add_argument("--resume", metavar="FILE", help="go on with a run that was stopped, or show it again")
    files.add_argument("--compare", metavar="FILE", nargs=2, help="show the differences between two runs")
    files.add_argument("--json", action="store_true", help="print one JSON object")
    files.add_argument("--html", metavar="FILE", help="write a page with charts")
