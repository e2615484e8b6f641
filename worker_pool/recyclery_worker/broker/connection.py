"""Connections of our own to the broker, and the programs that the supervisor's commands run on one.

Such a program imports the user's app, so it is a process of its own. It exits with the reason on standard
error: 1 when the app cannot be imported, 3 when its broker is not Redis, 4 when that does not answer.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import redis

BOUNDED = {"socket_timeout": 3.0, "socket_connect_timeout": 3.0}
# The brokers that a worker asks for more than messages, with what bounds the wait for an answer.
BOUNDED_BY_KIND = {"redis": BOUNDED, "amqp": {"read_timeout": 3.0, "write_timeout": 3.0}}
CANNOT_IMPORT, NOT_REDIS, NO_ANSWER = 1, 3, 4
# The keys that all our processes share, with the type that we give them.
SHARED_KEYS = {
    "recyclery:generations": "hash",
    "recyclery:leases": "zset",
    "recyclery:parked": "hash",
    "recyclery:tunes": "zset",
}


@contextmanager
def connected(app: Any, **options: Any) -> Iterator[Any]:
    """Yield a channel of a new connection, with further transport options.

    Raises what kombu and redis raise when Redis is away, soon; by itself kombu would retry for ever.
    """
    with app.connection_for_write(transport_options={**BOUNDED, **options}) as connection:
        connect(connection)
        yield connection.default_channel


def connect(connection: Any) -> None:
    """Connect to the first broker of a list (failover) that answers; `Connection.connect` asks two of them."""
    others = max(1, len(connection.alt) - 1)
    connection.ensure_connection(max_retries=others, reraise_as_library_errors=False)


def describe_failure(error: BaseException) -> str:
    """Return what an error says, without secrets."""
    # Sentinel's error ends with the whole client, its options and password among them.
    return str(error).partition(" : <")[0]


def broker_urls(connection: Any) -> list[str]:
    """Return the URLs of a list of brokers, or of the one broker, with their passwords."""
    return list(connection.alt) or [connection.as_uri(include_password=True)]


def open_redis(channel: Any) -> tuple[redis.Redis, str]:
    """Return a client for a kombu channel's Redis, over the channel's pool (TLS, Sentinel), and the prefix."""
    import redis  # noqa: PLC0415  # not before an app's own imports, which may patch what it uses

    # The channel's own client adds the prefix to some commands and not to others.
    return redis.Redis(connection_pool=channel.pool), getattr(channel, "global_keyprefix", "") or ""


def count_ready(connection: Any, queue: str) -> int:
    """Return how many messages wait, on a channel of its own: RabbitMQ closes it where there is no queue."""
    with connection.channel() as channel:
        return count_waiting(channel, queue)


def count_waiting(channel: Any, queue: str) -> int:
    """Return how many messages of all priorities wait in a queue; an empty queue does not exist in Redis."""
    from kombu.exceptions import ChannelError  # noqa: PLC0415  # the same

    with suppress(ChannelError):
        return int(channel.queue_declare(queue=queue, passive=True).message_count)
    return 0


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


def is_wrong_type(error: BaseException) -> bool:
    """Return whether Redis says that a key is of another type than what is done with it."""
    return "WRONGTYPE" in str(error)


def name_wrong_keys(app: Any, error: BaseException) -> str:
    """Return which of our keys are of another type, with the way out, where Redis says so; else empty."""
    if not is_wrong_type(error):
        return ""
    wrong = []
    # Redis may have gone since.
    with suppress(Exception), connected(app) as channel:
        client, prefix = open_redis(channel)
        for key, ours in SHARED_KEYS.items():
            seen: Any = client.type(prefix + key)
            if (kind := seen.decode()) not in {ours, "none"}:
                wrong.append(f"{prefix}{key} is a {kind}")
    return f"{', '.join(wrong)}, not Recyclery's: DEL it, or RENAME it to keep what it holds" if wrong else ""


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
        problem = name_wrong_keys(app, error) or f"{type(error).__name__}: {describe_failure(error)}"
        return refuse(NO_ANSWER, problem)
    return 0


def end_with(main: Callable[[], int]) -> NoReturn:
    """Run a program and end with its status at once: a thread of the app's must not keep it."""
    try:
        status = main()
    except BaseException:  # what ends a program without an answer, also the app's own exit
        traceback.print_exc()
        status = CANNOT_IMPORT
    with suppress(OSError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def refuse(status: int, reason: str) -> int:
    print(reason, file=sys.stderr)
    return status
