"""`recyclery parked`: its arguments; what does it is imported only then, as Celery and the app take a while."""

from __future__ import annotations

import argparse

ACTIONS = {
    "list": "the tasks that are parked",
    "show": "one of them, and how its runs ended",
    "retry": "put tasks back to their queues, their deaths forgotten",
    "drop": "throw tasks away, and let what waits for their results fail",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what may be done with parked tasks."""
    actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
    for name, text in ACTIONS.items():
        action = actions.add_parser(name, help=text)
        if name == "show":
            action.add_argument("ids", metavar="ID", nargs=1, help="the task's id")
        if name in {"retry", "drop"}:
            which = action.add_mutually_exclusive_group(required=True)
            which.add_argument("ids", metavar="ID", nargs="*", default=[], help="the tasks' ids")
            which.add_argument("--all", action="store_true", help="all that are parked")
        action.add_argument(
            "--config", metavar="FILE", help="default: /etc/recyclery/recyclery.toml if there is one"
        )
        action.add_argument("-A", "--app", help="the Celery app, as celery -A takes it (CELERY_APP)")
        action.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    from recyclery.cli.parked import run_action  # noqa: PLC0415

    return run_action(args)
