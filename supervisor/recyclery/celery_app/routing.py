"""`recyclery routes`: where a Celery app sends its tasks, by the app's own router; nothing is connected to."""

import argparse
import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from kombu import Queue
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

from recyclery.common.exit_codes import BAD_CONFIGURATION, fail
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Pool
from recyclery.config.sources import load_deployment, read_command_line
from recyclery_worker.delivery.defaults import set_defaults, settle_tasks

DESTINATION = ("queue", "exchange", "routing_key")
COLUMNS = 80
LONGEST_QUEUE = 16
HEADINGS = ("task", "queue", "pool", "chosen by")
NOTHING = "-"


class UnusableApp(Exception):
    """The app cannot be imported; the message says why."""


@dataclass(frozen=True)
class Route:
    """The queues that a task's messages reach, and what chose them; `fault` says why there are none."""

    task: str
    queues: tuple[str, ...]
    chosen_by: str
    fault: str | None = None


@dataclass(frozen=True)
class Routing:
    """All of an app's tasks, by name, and the queues that the app declares."""

    routes: tuple[Route, ...]
    declared: tuple[str, ...] = ()


def import_app(name: str) -> Celery:
    """Import the app, as `celery -A` takes it, from the working directory and with our worker's defaults.

    Raises UnusableApp.
    """
    set_defaults()
    sys.path.insert(0, str(Path.cwd()))
    with output_as_errors():
        try:
            app = find_app(name)
            app.loader.import_default_modules()
            app.finalize()
            settle_tasks(app)
        except (Exception, SystemExit) as error:  # the app's own code may raise anything, or exit
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise UnusableApp(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})") from None
    return app


def import_configured_app(name: str) -> Celery:
    """Import the app that the settings name; raises BadConfiguration."""
    try:
        return import_app(name)
    except UnusableApp as error:
        raise BadConfiguration(f"app is {name!r}: it cannot be imported from {Path.cwd()}: {error}") from None


def find_routes(app: Celery) -> Routing:
    """Ask the router of an app that is finalized."""
    declared = tuple(queue.name for queue in app.conf.task_queues or ())
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return Routing(tuple(find_route(app, app.tasks[name]) for name in names), declared)


def find_route(app: Celery, task: Any) -> Route:
    """Route one task as its `delay()` would."""
    own = {key: value for key in DESTINATION if (value := getattr(task, key, None)) is not None}
    router = app.amqp.router
    chosen_by = "the task" if own else "task_default_queue"
    try:
        if not own and router.lookup_route(task.name, (), {}, {}, task):
            chosen_by = "task_routes"
        queues = find_queues(app, router.route(dict(own), task.name, (), {}, task))
    except Exception as error:  # a route may be the app's own function
        return Route(task.name, (), chosen_by, fault=f"{type(error).__name__}: {error}")
    fault = None if queues else "no queue is bound to its exchange with its routing key"
    return Route(task.name, queues, chosen_by, fault)


def find_queues(app: Celery, options: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the queues that a message with these options reaches: the one named, else those bound."""
    queue = options.get("queue")
    if queue is not None:
        return (queue.name if isinstance(queue, Queue) else queue,)
    exchange = options.get("exchange") or app.conf.task_default_exchange
    exchange = getattr(exchange, "name", exchange)
    bound = [queue for queue in app.amqp.queues.values() if queue.exchange.name == exchange]
    if not bound:
        return ()
    kind: Any = STANDARD_EXCHANGE_TYPES[bound[0].exchange.type](None)
    key = options.get("routing_key") or app.conf.task_default_routing_key
    table = [kind.prepare_bind(queue.name, exchange, queue.routing_key, None) for queue in bound]
    return tuple(sorted(kind.lookup(table, exchange, key, None)))


@contextmanager
def output_as_errors() -> Iterator[None]:
    """Send everything printed meanwhile to standard error: what an app's modules print is not our output."""
    sys.stdout.flush()
    own_output = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(own_output, 1)
        os.close(own_output)


def print_routes(args: argparse.Namespace) -> int:
    """Print where the tasks go; return 1 where a queue has no pool, or a pool no task."""
    try:
        settings, pools = load_deployment(read_command_line(args), os.environ)
        app = import_configured_app(settings.app)
    except BadConfiguration as error:
        return fail(error, BAD_CONFIGURATION)
    with output_as_errors():
        routing = find_routes(app)
    problems = find_routing_problems(routing, pools)
    if args.json:
        print(json.dumps(routes_document(routing, pools, problems), indent=2))
    else:
        print("\n".join([*format_routes(routing.routes, pools), *format_problems(problems)]))
    return 1 if problems else 0


def find_routing_problems(routing: Routing, pools: Sequence[Pool]) -> list[str]:
    """Return what would leave tasks waiting for ever, or a pool without work."""
    tasks_by_queue: dict[str, list[str]] = {queue: [] for queue in routing.declared}
    for route in routing.routes:
        for queue in route.queues:
            tasks_by_queue.setdefault(queue, []).append(route.task)
    problems = [f"{route.task} goes nowhere: {route.fault}" for route in routing.routes if route.fault]
    for queue, tasks in tasks_by_queue.items():
        if not pools_of(queue, pools):
            waiting = (
                f"{len(tasks)} kinds of task go there, {tasks[0]} first" if tasks else "the app declares it"
            )
            problems.append(f"queue {queue} has no pool: {waiting}; add it to the queues of a pool")
    for pool in pools:
        if not any(tasks_by_queue.get(queue) for queue in pool.queues):
            problems.append(f"pool {pool.name} gets no task: nothing goes to {', '.join(pool.queues)}")
    return problems


def pools_of(queue: str, pools: Iterable[Pool]) -> list[str]:
    """Return the names of the pools that take tasks from a queue."""
    return [pool.name for pool in pools if queue in pool.queues]


def routes_document(routing: Routing, pools: Sequence[Pool], problems: list[str]) -> dict[str, Any]:
    """Return all of it as `--json` prints it."""
    return {
        "tasks": {
            route.task: {
                "queues": list(route.queues),
                "pools": sorted({name for queue in route.queues for name in pools_of(queue, pools)}),
                "chosen_by": route.chosen_by,
            }
            for route in routing.routes
        },
        "pools": {pool.name: list(pool.queues) for pool in pools},
        "problems": problems,
    }


def format_routes(routes: Iterable[Route], pools: Sequence[Pool]) -> list[str]:
    """Return a line for each task and queue, none longer than 80 columns, in the order of the pools' queues.

    A task's name loses its beginning, a queue's and a pool's their end.
    """
    order = {queue: index for index, queue in enumerate(queue for pool in pools for queue in pool.queues)}
    rows = [
        (route.task, queue, ",".join(pools_of(queue, pools)) or NOTHING, route.chosen_by)
        for route in routes
        for queue in route.queues or (NOTHING,)
    ]
    rows.sort(key=lambda row: (order.get(row[1], len(order)), row[1], row[0]))
    columns = list(zip(HEADINGS, *rows, strict=True))
    longest = [max(map(len, column)) for column in columns]
    widths = [min(LONGEST_QUEUE, longest[1]), min(LONGEST_QUEUE, longest[2]), longest[3]]
    task_width = min(COLUMNS - sum(widths) - 2 * len(widths), longest[0])
    lines = []
    for task, *others in (HEADINGS, *rows):
        cells = [shorten_end(cell, width).ljust(width) for cell, width in zip(others, widths, strict=True)]
        lines.append("  ".join([shorten_front(task, task_width).ljust(task_width), *cells]).rstrip())
    return lines


def format_problems(problems: list[str]) -> list[str]:
    """Return the problems as lines below the table, or that there are none."""
    sentences = problems or ["Every queue has a pool, and every pool has tasks."]
    wrap = textwrap.TextWrapper(COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return ["", *(line for sentence in sentences for line in wrap.wrap(sentence))]


def wrap_text(text: str, first: str, rest: str) -> list[str]:
    """Return a text as lines of at most 80 columns, the first and the others with these beginnings."""
    return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def shorten_front(text: str, width: int) -> str:
    """Return the text's end where all of it is too long."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def shorten_end(text: str, width: int) -> str:
    """Return the text's beginning where all of it is too long."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
