"""Connections of our own to a worker's broker, and the programs that the supervisor's commands run for one.

These programs import the user's app, so each is a process of its own. They exit with the reason on standard
error: 1 when the app cannot be imported, 3 when its broker is not Redis, 4 when that does not answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

BOUNDED = {"socket_timeout": 3.0, "socket_connect_timeout": 3.0}
CANNOT_IMPORT, NOT_REDIS, NO_ANSWER = 1, 3, 4


def serve(name: str, work: Callable[[Any, int], None], *, else_say: str) -> int:
    """Do the work with the app of that name and a descriptor for the answer; return the exit status.

    `else_say` is what is said where the broker is another than Redis.
    """
    sys.path.insert(0, str(Path.cwd()))
    # What the app's own modules print is not the answer.
    answer = os.dup(1)
    os.dup2(2, 1)
    from celery.app.utils import find_app  # noqa: PLC0415

    try:
        app = find_app(name)
        app.loader.import_default_modules()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or leave
        return refuse(CANNOT_IMPORT, f"{type(error).__name__}: {error}")
    try:
        if broker_kind(app) != "redis":
            return refuse(NOT_REDIS, else_say)
        work(app, answer)
    except Exception as error:  # kombu and redis raise errors of many kinds
        return refuse(NO_ANSWER, f"{type(error).__name__}: {error}")
    return 0


def refuse(status: int, reason: str) -> int:
    """Say why on standard error; return the exit status."""
    print(reason, file=sys.stderr)
    return status


@contextmanager
def connected(app: Any, **options: Any) -> Iterator[Any]:
    """Yield a channel of a connection of its own, with further transport options; never waits for long.

    Raises what kombu and redis raise when Redis is away: by itself kombu would try again for ever.
    """
    with app.connection_for_write(transport_options={**BOUNDED, **options}) as connection:
        connection.connect()
        yield connection.default_channel


def open_redis(channel: Any) -> tuple[redis.Redis, str]:
    """Return a client for the Redis of a kombu channel, by its own pool (TLS, Sentinel, all), and its prefix.

    The channel's own client adds the prefix to some commands and not to others.
    """
    return redis.Redis(connection_pool=channel.pool), getattr(channel, "global_keyprefix", "") or ""


def broker_kind(app: Any) -> str:
    """Return the kind of the app's broker, as kombu names it: redis, amqp and so on."""
    with app.connection_for_write() as connection:
        return str(connection.transport.driver_type)
