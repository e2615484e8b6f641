"""Whether the app's result backend takes results. Where it does not, tasks run and their results are lost."""

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from celery.app.backends import by_url
from celery.backends.base import DisabledBackend
from celery.backends.redis import RedisBackend, SentinelBackend
from celery.backends.rpc import RPCBackend
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger
from redis.exceptions import NoPermissionError

from recyclery_worker.broker.connection import BOUNDED, describe_failure
from recyclery_worker.compat import missing

logger = get_logger(__name__)

ANSWER_SECONDS = 4.0
PROBE_ID = "recyclery-probe"
REDIS_KINDS = (RedisBackend, SentinelBackend)


def find_backend_problem(app: Any) -> str:
    """Return what is wrong with the app's result backend, without secrets; empty where nothing is.

    It takes no longer than ANSWER_SECONDS, whatever kind of backend it is. Others than Redis are made and asked
    in a thread, where clients of their own kinds may start more: not for a worker.
    """
    return within_seconds(lambda: try_backend(app))


def warn_of_backend(app: Any) -> None:
    """Log once, from a thread of its own, that a Redis takes no results; other backends are left alone."""
    # Not in the thread, for which Celery would make another.
    backend = app.backend

    def warn() -> None:
        if problem := within_seconds(lambda: try_asking(backend)):
            logger.warning("results will be lost, as tasks run all the same: result backend %s", problem)

    if is_redis(backend):
        threading.Thread(target=warn, name="recyclery-result-backend", daemon=True).start()


def within_seconds(find: Callable[[], str]) -> str:
    found = [f"no answer within {ANSWER_SECONDS:g} s"]

    def probe() -> None:
        found[0] = find()

    thread = threading.Thread(target=probe, name="recyclery-result-backend", daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    return found[0]


def is_redis(backend: Any) -> bool:
    """Return whether a connection of our own tells about a backend; of an app's own class it may not."""
    return type(backend) in REDIS_KINDS and not missing("results")


def uses_redis(app: Any) -> bool:
    """Return whether an app's settings name Redis; the backend is not made for that."""
    with contextlib.suppress(Exception):  # what it names may be the app's own, or not there
        find: Any = by_url
        kind, _ = find(app.backend_cls or app.conf.result_backend, app.loader)
        return kind in REDIS_KINDS
    return False


def try_backend(app: Any) -> str:
    """Return what is wrong with the app's result backend, whenever that is known."""
    try:
        backend = app.backend
    except BaseException as error:  # what makes it may be the app's own, which may exit
        return f"it cannot be used: {explain_error(app, error)}"
    return try_asking(backend)


def try_asking(backend: Any) -> str:
    try:
        ask_backend(backend)
    except BaseException as error:  # each kind of backend raises errors of its own
        what = describe_failure(error) or repr(error)
        return f"{backend.as_uri() or type(backend).__name__}: {what}"
    return ""


def explain_error(app: Any, error: BaseException) -> str:
    # Of a URL these name the scheme alone; others may show what they could not read: a part of the password.
    configured = str(app.backend_cls or app.conf.result_backend)
    names_scheme = "://" in configured and isinstance(error, ImproperlyConfigured | ImportError)
    if names_scheme or "@" not in configured:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: is it there, its scheme right, its password percent-encoded?"


def ask_backend(backend: Any) -> None:
    """Raise what the backend raises where it is away, or takes no results."""
    if isinstance(backend, DisabledBackend | RPCBackend):
        return  # Results are not kept, or go through the broker.
    if is_redis(backend):
        try_redis(backend)
        return
    # Only read: a result that is written could start something in the user's database. A backend of the app's
    # own may be one that cannot be read.
    with contextlib.suppress(NotImplementedError, AttributeError):
        backend.get_task_meta(PROBE_ID, cache=False)


def open_redis_client(backend: Any) -> Any:
    """Return a client of our own for a Redis backend, which waits for no answer for long."""
    options = backend.connparams
    return backend._create_client(**options | {name: BOUNDED[name] for name in BOUNDED if name in options})


def try_redis(backend: Any) -> None:
    client = open_redis_client(backend)
    key = backend.get_key_for_task(PROBE_ID)
    try:
        ask_for_write(client, key)
        # Celery stores a result and publishes it in one transaction.
        client.publish(key, "")
    finally:
        client.connection_pool.disconnect()


def ask_for_write(client: Any, key: str) -> None:
    try:
        # It creates nothing, and is refused where other writes are.
        client.setrange(key, 0, "")
    except NoPermissionError as error:
        # A user with an explicit list of commands may lack this one and have all that Celery needs.
        if " to run the " not in str(error):
            raise
