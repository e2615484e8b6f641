"""The private names of Celery, kombu and billiard that this package uses, by feature and by owner.

A feature is off where one of its names is missing: that is logged in one line, and Celery's own behaviour
remains. Unchecked, a missing name would fail in the middle of a task.
"""

import contextlib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import CodeType
from typing import Any, Literal

import celery

Feature = Literal["pool", "lease", "receive", "connections", "results", "parking", "poison", "tuning"]

# A name with () is a method or class attribute; any other is set or read by the class's own code. Verified with
# Celery 5.5.3, 5.6.3 and 5.7.0, kombu 5.5.4 and 5.7.0, billiard 4.2.4 and 4.3.2, redis-py 5.2.1 and 8.1.0.
FEATURES: Mapping[Feature, Mapping[str, str]] = {
    "pool": {
        "celery.concurrency.asynpool:AsynPool": """
            WorkerProcess() _create_worker_process() _join_exited_workers() _maintain_pool() _process_by_pid()
            _repopulate_pool() _track_child_process() create_process_queues() flush() on_job_process_down()
            on_job_ready() on_process_alive() process_flush_queues() _active_writes _all_inqueues _busy_workers
            _cache _fileno_to_inq _max_memory_per_child _maxtasksperchild _pool _processes _putlock _queues
            _state _timeout_handler inqW_fd on_hard_timeout""",
        "celery.concurrency.asynpool:Worker": "_do_exit() after_fork() inq wait_for_job",
        "billiard.process:BaseProcess": "_controlled_termination",
        "billiard.queues:_SimpleQueue": "_reader",
        "billiard.pool:ApplyResult": """
            ready() _set() _write_to() _accepted _job _time_accepted _timeout _worker_pid correlation_id""",
        "billiard.pool:TimeoutHandler": "_trywaitkill()",
        "celery.worker.consumer.consumer:Consumer": "_update_prefetch_count()",
    },
    "lease": {
        "kombu.transport.redis:QoS": """
            append() ack() reject() restore_visible() restore_unacked_once() _remove_from_indices()""",
        "kombu.transport.redis:Channel": """
            QoS() _do_restore_message() _lookup() _get_message_priority() _q_for_pri()""",
        "kombu.transport.virtual.base:Message": "_raw",
        "celery.worker.request:Request": "on_failure() _already_cancelled()",
        "billiard.pool:ApplyResult": "_accept_callback",
    },
    "receive": {
        "kombu.transport.redis:Channel": """
            _brpop_start() _brpop_read() _receive_one() _update_queue_cycle() _q_for_pri() _in_poll()
            _queue_cycle""",
        "kombu.transport.redis:QoS": "_remove_from_indices()",
        "kombu.transport.redis:Transport": "Channel() _deliver()",
        "redis.connection:Connection": "_sock",
    },
    "connections": {"kombu.transport.redis:Channel": "pool() async_pool() _async_pool() _get_pool()"},
    "results": {"celery.backends.redis:RedisBackend": "_create_client()"},
    "parking": {
        "kombu.transport.redis:Channel": "_lookup() _get_message_priority() _q_for_pri()",
        "kombu.transport.virtual.base:Message": "_raw",
        "celery.worker.request:Request": "on_reject() _context()",
    },
    "poison": {
        "celery.worker.request:Request": "on_failure()",
        "celery.worker.worker:WorkController": "_process_task() _quick_release",
        "kombu.transport.redis:Channel": "_lookup() _get_message_priority() _q_for_pri()",
        "kombu.transport.virtual.base:Message": "_raw",
    },
    "tuning": {
        "kombu.transport.redis:Channel": "global_keyprefix() _put() _size() _q_for_pri()",
        "kombu.messaging:Producer": "_publish()",
        "celery.app.base:Celery": "_backend_cache",
        "celery.app.task:Task": "_backend()",
    },
}
# Names that may be missing, and what is then done.
OPTIONAL: Mapping[str, str] = {
    "_announce_cancelled": "a worker told to QUIT goes on where its result backend is away",
    "_brpop_sent_at": "nothing: kombu up to 5.5 does not look for answers that are late",
    "_callback": "the running time counts for no queue",
    "_conn": "Selenium repeats a request that timed out",
    "_keys": "Celery's own `value_set_for`, which up to 5.5 misses old names of settings",
    "_reload_current_worker": "a HUP before the TERM that ends a worker starts it again",
    "_OLD_DEFAULTS": "an app that names its settings as Celery 3 did has Celery's own defaults",
    "_TO_OLD_KEY": "the same",
    "cancel_active_requests": "a worker told to QUIT just after a task's start waits for the task's end",
    "cancel_all_unacked_requests": "the same, where Celery has neither",
    "bind": "a task keeps what the settings were at its first use, before the app has said all",
    "_sentinel_poll": "a child's exit is noticed by billiard's sentinel or timer, up to 5 s late",
}


def missing(feature: Feature) -> tuple[str, ...]:
    """Return the names that a feature misses, as Class.name; empty where it can be used."""
    return tuple(name for name, is_there in check(feature) if not is_there)


def found(feature: Feature) -> tuple[str, ...]:
    """Return the names of a feature that are there, as Class.name."""
    return tuple(name for name, is_there in check(feature) if is_there)


def describe_missing(feature: Feature) -> str:
    """Return what is missing, as the start of a sentence."""
    return f"Celery {celery.__version__} with kombu {version('kombu')} lacks {', '.join(missing(feature))}"


def check(feature: Feature) -> Iterator[tuple[str, bool]]:
    """Yield each name of a feature, as Class.name, and whether it is there."""
    for owner, names in FEATURES[feature].items():
        module, _, class_name = owner.partition(":")
        kind: Any = None
        with contextlib.suppress(ImportError, AttributeError):
            kind = getattr(importlib.import_module(module), class_name)
        used = names_in(kind) if kind is not None else frozenset()
        for name in names.split():
            bare = name.removesuffix("()")
            yield f"{class_name}.{bare}", hasattr(kind, bare) if bare != name else bare in used


def names_in(kind: type) -> frozenset[str]:
    """Return every name that the code of a class and its bases uses: among them the fields it sets."""
    return frozenset(
        name
        for base in kind.__mro__
        for function in vars(base).values()
        if inspect.isfunction(function)
        for name in names_in_code(function.__code__)
    )


def names_in_code(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in_code(constant)


def is_set(conf: Any, name: str) -> bool:
    """Return whether the user has set a setting, under any of the names that Celery knows it by."""
    keys = getattr(conf, "_keys", None)
    if keys is None:
        return bool(conf.value_set_for(name))
    # The last map holds Celery's own defaults (celery/app/utils.py, Settings.without_defaults).
    return name in type(conf)({}, conf.maps[:-1], keys, conf.prefix)
