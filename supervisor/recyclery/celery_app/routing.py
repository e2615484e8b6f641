"""Where a Celery app sends its tasks, asked of the app's own router; nothing is connected to."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from kombu import Queue
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Pool
from recyclery.config.sources import CommandLine, load_deployment

DESTINATION = ("queue", "exchange", "routing_key")


class UnusableApp(Exception):
    """The app cannot be imported; the message says why."""


@dataclass(frozen=True)
class Route:
    """One task's way: the queues its messages reach, and what chose them; `fault` says why there are none."""

    task: str
    queues: tuple[str, ...]
    chosen_by: str
    fault: str | None = None


@dataclass(frozen=True)
class Routing:
    """All of an app's tasks, by name, and the queues that the app declares."""

    routes: tuple[Route, ...]
    declared: tuple[str, ...] = field(default=())


def read_routing(name: str) -> Routing:
    """Import the app and ask its router; raises UnusableApp."""
    app = import_app(name)
    with output_as_errors():
        return routing_of(app)


def import_app(name: str) -> Celery:
    """Import the app, as `celery -A` takes it, from the working directory; raises UnusableApp."""
    sys.path.insert(0, str(Path.cwd()))
    with output_as_errors():
        try:
            app = find_app(name)
            app.loader.import_default_modules()
            app.finalize()
        except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise UnusableApp(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})") from None
    return app


def routing_of(app: Celery) -> Routing:
    """Ask the router of an app that is finalized."""
    declared = tuple(queue.name for queue in app.conf.task_queues or ())
    names = sorted(name for name in app.tasks if not name.startswith("celery."))
    return Routing(routes=tuple(route_of(app, app.tasks[name]) for name in names), declared=declared)


def route_of(app: Celery, task: Any) -> Route:
    """Route one task as its `delay()` would."""
    own = {key: value for key in DESTINATION if (value := getattr(task, key, None)) is not None}
    router = app.amqp.router
    chosen_by = "task_default_queue"
    try:
        if own:
            chosen_by = "the task"
        elif router.lookup_route(task.name, (), {}, dict(own), task):
            chosen_by = "task_routes"
        options = router.route(dict(own), task.name, (), {}, task)
        queues = reached_queues(app, options)
    except Exception as error:  # a route may be the app's own function
        return Route(task.name, (), chosen_by, fault=f"{type(error).__name__}: {error}")
    fault = None if queues else "no queue is bound to its exchange with its routing key"
    return Route(task.name, queues, chosen_by, fault)


def reached_queues(app: Celery, options: Mapping[str, Any]) -> tuple[str, ...]:
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
    """Send what is printed meanwhile to standard error: what an app's modules print is not the answer."""
    sys.stdout.flush()
    answer = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(answer, 1)
        os.close(answer)


COLUMNS = 80
LONGEST_NAME = 16
HEADINGS = ("task", "queue", "pool", "chosen by")
NOTHING = "-"


def print_routes(line: CommandLine, *, as_json: bool) -> int:
    """Print where the tasks go; return 1 when a queue has no pool, or a pool no task."""
    try:
        settings, pools = load_deployment(line, os.environ)
        routing = read_routing(settings.app)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    except UnusableApp as error:
        message = f"app is {settings.app!r}: it cannot be imported from {Path.cwd()}: {error}"
        print(f"recyclery: {message}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    problems = find_problems(routing, pools)
    if as_json:
        print(json.dumps(describe(routing, pools, problems), indent=2))
    else:
        print("\n".join([*format_table(table_rows(routing.routes, pools)), *format_problems(problems)]))
    return 1 if problems else 0


def find_problems(routing: Routing, pools: Iterable[Pool]) -> list[str]:
    """Say what would leave tasks waiting for ever, or a pool without work."""
    pools = tuple(pools)
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
    """Name the pools that take tasks from a queue."""
    return [pool.name for pool in pools if queue in pool.queues]


def describe(routing: Routing, pools: Iterable[Pool], problems: list[str]) -> dict[str, Any]:
    """Return all of it as one document."""
    pools = tuple(pools)
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


def table_rows(routes: Iterable[Route], pools: Iterable[Pool]) -> list[tuple[str, ...]]:
    """Return a row for each task and queue, the queues together and in the order of the pools."""
    pools = tuple(pools)
    served = [queue for pool in pools for queue in pool.queues]
    order = {queue: place for place, queue in enumerate(served)}
    rows = [
        (route.task, queue, ",".join(pools_of(queue, pools)) or NOTHING, route.chosen_by)
        for route in routes
        for queue in route.queues or (NOTHING,)
    ]
    return sorted(rows, key=lambda row: (order.get(row[1], len(order)), row[1], row[0]))


def format_table(rows: list[tuple[str, ...]]) -> list[str]:
    """Return the lines, none longer than 80 columns: a task's name loses its beginning, others their end."""
    rows = [HEADINGS, *rows]
    widths = [min(LONGEST_NAME, max(len(row[column]) for row in rows)) for column in (1, 2)]
    widths.append(max(len(row[3]) for row in rows))
    room = COLUMNS - sum(widths) - 2 * len(widths)
    task_width = min(room, max(len(row[0]) for row in rows))
    return [
        "  ".join(
            [
                shorten_front(row[0], task_width).ljust(task_width),
                *(shorten_end(cell, width).ljust(width) for cell, width in zip(row[1:], widths, strict=True)),
            ]
        ).rstrip()
        for row in rows
    ]


def format_problems(problems: list[str]) -> list[str]:
    """Return the problems as lines below the table, or that there are none."""
    said = problems or ["Every queue has a pool, and every pool has tasks."]
    wrap = textwrap.TextWrapper(COLUMNS, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return ["", *(line for problem in said for line in wrap.wrap(problem))]


def shorten_front(text: str, width: int) -> str:
    """Return the text's end where all of it is too long."""
    return text if len(text) <= width else f"…{text[1 - width :]}"


def shorten_end(text: str, width: int) -> str:
    """Return the text's beginning where all of it is too long."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
