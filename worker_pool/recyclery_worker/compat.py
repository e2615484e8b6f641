"""The start-up self-test: the private parts of Celery and billiard that our pool rests on, found or missing.

It looks at the classes before a pool is made of them: one that lacked a part would fail amid a task.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from functools import cache
from types import CodeType

import celery
from billiard import pool as billiard_pool
from celery.concurrency import asynpool

# Read in Celery 5.5.3, 5.6.3 and 5.7.0 with billiard 4.2.4 and 4.3.2.
POOL_METHODS = (
    "WorkerProcess",
    "_create_worker_process",
    "_join_exited_workers",
    "_maintain_pool",
    "_process_by_pid",
    "_repopulate_pool",
    "_track_child_process",
    "create_process_queues",
    "flush",
    "on_job_ready",
    "on_process_alive",
)
POOL_FIELDS = (
    "_active_writes",
    "_all_inqueues",
    "_busy_workers",
    "_cache",
    "_fileno_to_inq",
    "_maxtasksperchild",
    "_pool",
    "_processes",
    "_putlock",
    "_queues",
    "_state",
    "on_hard_timeout",
)
CHILD_METHODS = ("_do_exit", "after_fork")
CHILD_FIELDS = ("inq", "wait_for_job")
JOB_METHODS = ("ready",)
JOB_FIELDS = ("_accepted", "_time_accepted", "_timeout", "_worker_pid")


@cache
def missing_hooks() -> tuple[str, ...]:
    """Return the parts that are not there, by class and name; empty where our pool can run."""
    return tuple(name for name, found in try_hooks() if not found)


def found_hooks() -> tuple[str, ...]:
    """Return the parts that are there, by class and name."""
    return tuple(name for name, found in try_hooks() if found)


def try_hooks() -> Iterator[tuple[str, bool]]:
    """Yield each part's name and whether it is there."""
    for module, owner, methods, fields in (
        (asynpool, "AsynPool", POOL_METHODS, POOL_FIELDS),
        (asynpool, "Worker", CHILD_METHODS, CHILD_FIELDS),
        (billiard_pool, "ApplyResult", JOB_METHODS, JOB_FIELDS),
    ):
        kind = getattr(module, owner, None)
        spoken_of = names_in(kind) if kind is not None else frozenset()
        for name in methods:
            yield f"{owner}.{name}", callable(getattr(kind, name, None))
        for name in fields:
            yield f"{owner}.{name}", name in spoken_of


def names_in(kind: type) -> frozenset[str]:
    """Return every name that the code of a class and its bases speaks of: among them the fields it sets."""
    return frozenset(
        name
        for base in kind.__mro__
        for function in vars(base).values()
        if inspect.isfunction(function)
        for name in names_in_code(function.__code__)
    )


def names_in_code(code: CodeType) -> Iterator[str]:
    """Yield the names of a code object and of those inside it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in_code(constant)


def describe_missing() -> str:
    """Say in one line what is missing and what cannot be done without it."""
    return (
        f"Celery {celery.__version__} lacks {', '.join(missing_hooks())}: this worker runs Celery's own pool. "
        "No child of it can be retired and no limit changed while it runs; the supervisor replaces the worker"
    )
