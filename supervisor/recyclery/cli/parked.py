"""`recyclery parked list|show|retry|drop`, through the app's own connections to broker and result backend."""

import argparse
import base64
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from recyclery.celery_app.routing import (
    COLUMNS,
    import_configured_app,
    output_as_errors,
    shorten_end,
    shorten_front,
    wrap_text,
)
from recyclery.common.exit_codes import BAD_CONFIGURATION, fail
from recyclery.common.units import format_mib
from recyclery.config.fields import BadConfiguration
from recyclery.config.sources import load_settings, read_command_line
from recyclery_worker.broker.connection import connected
from recyclery_worker.parking.admission import drop_parked, retry_parked
from recyclery_worker.parking.records import (
    DeadLetterStore,
    Death,
    ParkedTask,
    count_caused,
    open_dead_letters,
    times,
    visible,
)

DONE = {"retry": "back in its queue", "drop": "dropped"}
LONGEST_PARKED_QUEUE = 10
MOST_SHOWN = 5000  # Of one text on the page; `--json` has all


class NotParked(Exception):
    """No such task is parked, or none can be; the message says why."""


def run_action(args: argparse.Namespace) -> int:
    """List, show, retry or drop; return 1 with a message where Redis is away or no such task is parked."""
    try:
        app = import_configured_app(load_settings(read_command_line(args), os.environ).app)
        with connected(app) as channel:
            kind = channel.connection.client.transport.driver_type
            if kind != "redis":
                raise NotParked(f"the broker is {kind}: tasks are parked only with Redis")
            store = open_dead_letters(channel)
            if args.action in DONE:
                retry_or_drop(app, channel, store, args)
            else:
                tasks = store.list_parked() if args.action == "list" else find_parked(store, args.ids)
                print_tasks([(task, store.list_deaths(task.task_id)) for task in tasks], args)
    except BadConfiguration as error:
        return fail(error, BAD_CONFIGURATION)
    except NotParked as error:
        return fail(error, 1)
    except Exception as error:  # kombu, redis and result backends raise errors of many kinds
        return fail(f"the broker or the result backend failed: {type(error).__name__}: {error}", 1)
    return 0


def print_tasks(tasks: Sequence[tuple[ParkedTask, Sequence[Death]]], args: argparse.Namespace) -> None:
    """Print parked tasks with their deaths: as JSON, as a list, or with everything that is known."""
    if args.json:
        print(json.dumps({"parked": [parked_document(task, deaths) for task, deaths in tasks]}, indent=2))
    elif args.action == "list":
        print("\n".join(format_list(tasks)))
    else:
        print("\n\n".join("\n".join(format_parked_task(task, deaths)) for task, deaths in tasks))


def retry_or_drop(app: Any, channel: Any, store: DeadLetterStore, args: argparse.Namespace) -> None:
    """Retry or drop the chosen tasks, and print which those were; raises NotParked."""
    act: Callable[[Any, Any, ParkedTask], bool] = {"retry": retry_parked, "drop": drop_parked}[args.action]
    done = []
    for task in store.list_parked() if args.all else find_parked(store, args.ids):
        # Failing a dropped task's result may run the app's own code.
        with output_as_errors():
            succeeded = act(app, channel, task)
        if not succeeded and not task.keys:
            print(f"{visible(task.task_id)} stays parked: nobody knows its queue", file=sys.stderr)
        if succeeded:
            done.append(task.task_id)
            if not args.json:
                print(f"{visible(task.task_id)}  {visible(task.name)}: {DONE[args.action]}")
    if args.json:
        print(json.dumps({args.action: done}))
    elif not done:
        print("nothing is parked")


def find_parked(store: DeadLetterStore, task_ids: Iterable[str]) -> list[ParkedTask]:
    """Return the parked tasks with these ids, all of them or none; raises NotParked."""
    wanted = set(task_ids)
    # Ids with control characters can be given as they are listed.
    found = [(task, {task.task_id, visible(task.task_id)} & wanted) for task in store.list_parked()]
    if missing := wanted.difference(*(ids for _, ids in found)):
        raise NotParked(f"{visible(', '.join(sorted(missing)))} is not parked: see `recyclery parked list`")
    return [task for task, ids in found if ids]


def format_list(tasks: Sequence[tuple[ParkedTask, Sequence[Death]]]) -> list[str]:
    """Return a line for each task, and one with the reason where there is one; none longer than 80 columns."""
    if not tasks:
        return ["nothing is parked"]
    rows = [("task", "parked", "died", "queue", "name")]
    for task, deaths in tasks:
        parked, queues = time.strftime("%d %b %H:%M", time.gmtime(task.at)), visible(",".join(task.queues))
        rows.append(
            (
                visible(task.task_id),
                parked,
                "-" if task.reason else str(count_caused(deaths)),
                shorten_end(queues, LONGEST_PARKED_QUEUE),
                visible(task.name),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    room = max(8, COLUMNS - sum(widths) - 2 * len(widths))
    reasons = [f"  {visible(task.reason)}" if task.reason else "" for task, _ in tasks]
    lines = []
    for (*cells, name), reason in zip(rows, ["", *reasons], strict=True):
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        lines.append("  ".join([*padded, shorten_front(name, room)]))
        if reason:
            lines.append(shorten_end(reason, COLUMNS))
    return lines


def format_parked_task(task: ParkedTask, deaths: Sequence[Death]) -> list[str]:
    lines, indent = [], " " * 11
    for name, text in (
        ("task", task.task_id),
        ("name", task.name),
        ("queue", ",".join(task.queues)),
        ("parked", f"{format_utc(task.at)} by {task.node}"),
        ("arguments", task.arguments if task.arguments.strip("? ") else ""),
        ("reason", task.reason) if task.reason else ("died", times(count_caused(deaths))),
    ):
        # What is not known is left out.
        lines += wrap_text(visible(shorten_end(text, MOST_SHOWN)), first=name.ljust(len(indent)), rest=indent)
    for death in deaths:
        where = death.node if death.pid is None else f"{death.node}, pid {death.pid}"
        size = "" if death.tree_bytes is None else f", {format_mib(death.tree_bytes)}"
        how = f"{format_utc(death.at)} on {where}{size}: {death.how}"
        lines += wrap_text(visible(how), first=indent, rest=f"{indent}  ")
    return lines


def parked_document(task: ParkedTask, deaths: Sequence[Death]) -> dict[str, Any]:
    """Return a task as `--json` prints it, its message as the broker has it."""
    return {
        "id": task.task_id,
        "name": task.name,
        "queues": task.queues,
        "arguments": task.arguments,
        "parked_at": task.at,
        "node": task.node,
        "deaths": [msgspec.to_builtins(death) for death in deaths],
        "reason": task.reason,
        "message": json.loads(bytes(task.message)),
        "raw": None if task.raw is None else base64.b64encode(task.raw).decode("ascii"),
    }


def format_utc(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
