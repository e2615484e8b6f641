"""Connections of our own to the broker, and the programs that the supervisor's commands run on one.

Such a program imports the user's app, so it is a process of its own. It exits with the reason on standard
error: 1 when the app cannot be imported, 3 when its broker is not Redis, 4 when that does not answer.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import redis

BOUNDED = {"socket_timeout": 3.0, "socket_connect_timeout": 3.0}
CANNOT_IMPORT, NOT_REDIS, NO_ANSWER = 1, 3, 4


@contextmanager
def connected(app: Any, **options: Any) -> Iterator[Any]:
    """Yield a channel of a new connection, with further transport options.

    Raises what kombu and redis raise when Redis is away, soon; by itself kombu would retry for ever.
    """
    with app.connection_for_write(transport_options={**BOUNDED, **options}) as connection:
        connection.connect()
        yield connection.default_channel


def open_redis(channel: Any) -> tuple[redis.Redis, str]:
    """Return a client for a kombu channel's Redis, over the channel's pool (TLS, Sentinel), and the prefix."""
    import redis  # noqa: PLC0415  # not before an app's own imports, which may patch what it uses

    # The channel's own client adds the prefix to some commands and not to others.
    return redis.Redis(connection_pool=channel.pool), getattr(channel, "global_keyprefix", "") or ""


def broker_kind(connection: Any) -> str:
    """Close a connection; return the kind of its broker, as kombu names it: redis, amqp and so on."""
    with connection:
        return str(connection.transport.driver_type)


def prepare_import() -> int:
    """Import from the working directory, print to standard error; return a descriptor of standard output."""
    sys.path.insert(0, str(Path.cwd()))
    descriptor = os.dup(1)
    os.dup2(2, 1)
    return descriptor


def load_app(name: str, *, finalize: bool = False) -> Any:
    """Import an app with its modules; with `finalize` build all its tasks too, as a worker does.

    Raises ImportError with what the app's own code raised, and where.
    """
    from celery.app.utils import find_app  # noqa: PLC0415

    try:
        app = find_app(name)
        app.loader.import_default_modules()
        if finalize:
            app.finalize()
    except (Exception, SystemExit) as error:  # the app's own code may raise anything, or exit
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ImportError(f"{type(error).__name__}: {error} ({last.filename}:{last.lineno})") from error
    return app


def run_program(app_name: str, work: Callable[[Any, int], None], *, without_redis: str) -> int:
    """Call `work` with the app and an output descriptor, or print `without_redis`; return the exit status."""
    output = prepare_import()
    try:
        app = load_app(app_name)
    except ImportError as error:
        return refuse(CANNOT_IMPORT, str(error))
    try:
        if broker_kind(app.connection_for_write()) != "redis":
            return refuse(NOT_REDIS, without_redis)
        work(app, output)
    except Exception as error:  # kombu and redis raise errors of many kinds
        return refuse(NO_ANSWER, f"{type(error).__name__}: {error}")
    return 0


def refuse(status: int, reason: str) -> int:
    print(reason, file=sys.stderr)
    return status
