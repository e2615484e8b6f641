"""`recyclery parked list|show|retry|drop`, by the app's own connections to its broker and result backend."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recyclery.config.keys import BadConfiguration
from recyclery.config.load import CommandLine, load
from recyclery.init import exit_codes
from recyclery.report.parked_page import describe, format_list, format_task
from recyclery.report.routes import ONE_CONTAINERS
from recyclery.report.routing import UnusableApp, import_app, output_as_errors
from recyclery_worker.broker.connection import connected
from recyclery_worker.parking.park import drop, retry
from recyclery_worker.parking.records import ParkedTask
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
    environment = {key: value for key, value in os.environ.items() if key not in ONE_CONTAINERS}
    name = load(CommandLine(config=args.config, app=args.app), environment).app
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
