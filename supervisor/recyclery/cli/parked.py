"""`recyclery parked list|show|retry|drop`, by the app's own connections to its broker and result backend."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from recyclery.celery_app.routing import (
    COLUMNS,
    UnusableApp,
    import_app,
    output_as_errors,
    shorten_end,
    shorten_front,
)
from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.sources import load_settings, read_command_line
from recyclery_worker.broker.connection import connected
from recyclery_worker.parking.park import drop, retry
from recyclery_worker.parking.records import Death, ParkedTask, times
from recyclery_worker.parking.store import DeadLetterStore, open_store

DONE = {"retry": "back in its queue", "drop": "dropped"}


class Unknown(Exception):
    """No such task is parked; the message says which."""


class OtherBroker(Exception):
    """The app's broker is not Redis; the message says what it is."""


def run_action(args: argparse.Namespace) -> int:
    """Do what was asked for; return 1 with a message where Redis is away or no such task is parked."""
    try:
        app = open_app(args)
        with parked_by(app) as channel:
            lot = open_store(channel)
            if args.action == "list":
                print_list(lot, as_json=args.json)
            elif args.action == "show":
                print_task(lot, args.ids[0], as_json=args.json)
            else:
                decide(app, channel, args)
    except BadConfiguration as error:
        return complain(str(error), exit_codes.BAD_CONFIGURATION)
    except (Unknown, OtherBroker) as error:
        return complain(str(error), 1)
    except Exception as error:  # kombu, redis and result backends raise errors of many kinds
        return complain(f"the broker or the result backend does not do it: {type(error).__name__}: {error}", 1)
    return 0


def open_app(args: argparse.Namespace) -> Any:
    """Import the app of the settings; raises BadConfiguration."""
    name = load_settings(read_command_line(args), os.environ).app
    try:
        return import_app(name)
    except UnusableApp as error:
        raise BadConfiguration(f"app is {name!r}: it cannot be imported from {Path.cwd()}: {error}") from None


@contextmanager
def parked_by(app: Any) -> Iterator[Any]:
    """Yield a channel to the app's broker; raises OtherBroker where nothing can be parked."""
    with connected(app) as channel:
        kind = channel.connection.client.transport.driver_type
        if kind != "redis":
            raise OtherBroker(f"the broker is {kind}: tasks are parked only with Redis")
        yield channel


def print_list(lot: DeadLetterStore, *, as_json: bool) -> None:
    """Print all that is parked."""
    tasks = [(task, lot.list_deaths(task.task_id)) for task in lot.list_parked()]
    if as_json:
        print(json.dumps({"parked": [describe(task, deaths) for task, deaths in tasks]}, indent=2))
    else:
        print("\n".join(format_list(tasks)))


def print_task(lot: DeadLetterStore, task_id: str, *, as_json: bool) -> None:
    """Print all that is known of one; raises Unknown."""
    pages = [(task, lot.list_deaths(task.task_id)) for task in find(lot, [task_id])]
    if as_json:
        print(json.dumps({"parked": [describe(task, deaths) for task, deaths in pages]}, indent=2))
    else:
        print("\n\n".join("\n".join(format_task(task, deaths)) for task, deaths in pages))


def decide(app: Any, channel: Any, args: argparse.Namespace) -> None:
    """Retry or drop what was named, and say which those were; raises Unknown."""
    act: Callable[[Any, Any, ParkedTask], bool] = {"retry": retry, "drop": drop}[args.action]
    lot = open_store(channel)
    done = []
    for task in lot.list_parked() if args.all else find(lot, args.ids):
        # What waits for a dropped task may be code of the app's.
        with output_as_errors():
            taken = act(app, channel, task)
        if taken:
            done.append(task.task_id)
            if not args.json:
                print(f"{task.task_id}  {task.name}: {DONE[args.action]}")
    if args.json:
        print(json.dumps({args.action: done}))
    elif not done:
        print("nothing is parked")


def find(lot: DeadLetterStore, task_ids: Iterable[str]) -> list[ParkedTask]:
    """Return the parked tasks with these ids, all of them or none; raises Unknown."""
    parked = lot.list_parked()
    missing = [wanted for wanted in task_ids if wanted not in {task.task_id for task in parked}]
    if missing:
        raise Unknown(f"{', '.join(missing)} is not parked: see `recyclery parked list`")
    return [task for task in parked if task.task_id in set(task_ids)]


def complain(text: str, code: int) -> int:
    """Say what is wrong; return the exit code."""
    print(f"recyclery: {text}", file=sys.stderr)
    return code


LONGEST_QUEUE = 10
MIB = 1 << 20


def format_list(tasks: Sequence[tuple[ParkedTask, Sequence[Death]]]) -> list[str]:
    """Return a line for each task, none longer than 80 columns."""
    if not tasks:
        return ["nothing is parked"]
    rows = [("task", "parked", "died", "queue", "name")]
    rows += [
        (
            task.task_id,
            time.strftime("%d %b %H:%M", time.gmtime(task.at)),
            str(len(deaths)),
            shorten_end(",".join(task.queues), LONGEST_QUEUE),
            task.name,
        )
        for task, deaths in tasks
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    room = max(8, COLUMNS - sum(widths) - 2 * len(widths))
    return [
        "  ".join(
            [
                *(cell.ljust(width) for cell, width in zip(row, widths, strict=False)),
                shorten_front(row[4], room),
            ]
        )
        for row in rows
    ]


def format_task(task: ParkedTask, deaths: Sequence[Death]) -> list[str]:
    """Return all that is known of a task, for people."""
    lines = [
        *paragraph("task", task.task_id),
        *paragraph("name", task.name),
        *paragraph("queue", ",".join(task.queues)),
        *paragraph("parked", f"{utc(task.at)} by {task.node}"),
        *paragraph("arguments", task.arguments),
        *paragraph("died", times(len(deaths))),
    ]
    for death in deaths:
        where = death.node if death.pid is None else f"{death.node}, pid {death.pid}"
        size = "" if death.tree_bytes is None else f", {death.tree_bytes / MIB:.0f} MiB"
        lines += paragraph("", f"{utc(death.at)} on {where}{size}: {death.how}", hang="  ")
    return lines


def paragraph(name: str, text: str, hang: str = "") -> list[str]:
    """Return text beside its name, in lines of at most 80 columns."""
    first = name.ljust(11)
    return textwrap.wrap(
        text, COLUMNS, initial_indent=first, subsequent_indent=" " * len(first) + hang, break_on_hyphens=False
    )


def describe(task: ParkedTask, deaths: Sequence[Death]) -> dict[str, Any]:
    """Return a task as a document, its message as the broker had it."""
    return {
        "id": task.task_id,
        "name": task.name,
        "queues": task.queues,
        "arguments": task.arguments,
        "parked_at": task.at,
        "node": task.node,
        "deaths": [msgspec.to_builtins(death) for death in deaths],
        "message": json.loads(bytes(task.message)),
    }


def utc(at: float) -> str:
    """Say a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
