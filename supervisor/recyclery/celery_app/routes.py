"""`recyclery routes`: each task, the queue it goes to, and the pool that takes it from there."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from recyclery.celery_app.routing import Route, Routing, UnusableApp, read_routing
from recyclery.common import exit_codes
from recyclery.config.keys import BadConfiguration
from recyclery.config.load import CommandLine, load
from recyclery.config.settings import Pool

COLUMNS = 80
LONGEST_NAME = 16
HEADINGS = ("task", "queue", "pool", "chosen by")
NOTHING = "-"

# They pick the part of one container; the routes are those of all containers together.
ONE_CONTAINERS = ("CELERY_QUEUES", "CELERY_WORKER_NAME", "CELERY_CONCURRENCY", "CELERY_MAX_TASKS_PER_CHILD")


def print_routes(line: CommandLine, *, as_json: bool) -> int:
    """Print where the tasks go; return 1 when a queue has no pool, or a pool no task."""
    try:
        settings = load(line, {key: value for key, value in os.environ.items() if key not in ONE_CONTAINERS})
        routing = read_routing(settings.app)
    except BadConfiguration as error:
        print(f"recyclery: {error}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    except UnusableApp as error:
        message = f"app is {settings.app!r}: it cannot be imported from {Path.cwd()}: {error}"
        print(f"recyclery: {message}", file=sys.stderr)
        return exit_codes.BAD_CONFIGURATION
    problems = find_problems(routing, settings.pools)
    if as_json:
        print(json.dumps(describe(routing, settings.pools, problems), indent=2))
    else:
        print(
            "\n".join([*format_table(table_rows(routing.routes, settings.pools)), *format_problems(problems)])
        )
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
