"""`recyclery tune`: the user's own tasks, run at several levels on a private queue, tell which level suits.

Its arguments, which every command imports, PID 1 among them; the rest is imported lazily.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")
    add("--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one")
    add("--pool", metavar="NAME", help="the pool whose settings are tuned")
    add("--task", metavar="NAME", help="the task to run, by its name in the app")
    add = parser.add_mutually_exclusive_group().add_argument
    lines = 'JSON lines to call it with, each [...] or {"args": [...], "kwargs": {...}}'
    add("--args", metavar="FILE", help=lines)
    add("--generate", metavar="MODULE:FUNC", help="or a function that yields such")

    add = parser.add_argument_group("what is measured, and for how long").add_argument
    add("--concurrency", metavar="N,N...", help="levels to try (1,2,4,8,16, as far as each brings more)")
    add("--max-tasks-per-child", metavar="N,N...", help="likewise (what the pool has)")
    add("--repeats", metavar="N", help="windows of each level (3, and up to 10 of levels near the best)")
    add("--seconds", metavar="N", help="a window's least length (10)")
    longest = "a window's greatest length, until each child was recycled (300)"
    add("--longest", metavar="SECONDS", help=longest)
    add("--seed", metavar="N", help="for the order of the windows and random arrivals")
    add("--memory", metavar="SIZE", help="the memory limit to tune for, such as 2GiB (the container's)")

    add = parser.add_argument_group("what the level has to meet").add_argument
    add("--objective", choices=("throughput", "latency"), default="throughput")
    add("--slo", metavar="SECONDS", help="95 %% of the tasks have to be done in this time")
    rate = (
        "how many tasks arrive, such as 2/s or 30/min: how many containers that needs, and how the recommended "
        "level copes; or a share of its capacity, such as 85%%; may be repeated"
    )
    add("--rate", metavar="RATE", action="append", default=[], help=rate)
    add("--trace", metavar="FILE", help="arrivals as `recyclery trace record` wrote them, at 70, 85 and 95 %%")

    add = parser.add_argument_group("where a run is kept and shown").add_argument
    add("--out", metavar="FILE", help="the run, to resume or to compare (tune-POOL-TIME.jsonl)")
    add("--resume", metavar="FILE", help="go on with a run that was stopped, or show it again")
    add("--compare", metavar="FILE", nargs=2, help="show the differences between two runs")
    add("--json", action="store_true", help="print one JSON object")
    add("--html", metavar="FILE", help="write a page with charts")
