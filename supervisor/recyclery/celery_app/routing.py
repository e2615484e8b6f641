"""Where a Celery app sends its tasks, asked of the app's own router; nothing is connected to."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from kombu import Queue
from kombu.transport.virtual.exchange import STANDARD_EXCHANGE_TYPES

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
