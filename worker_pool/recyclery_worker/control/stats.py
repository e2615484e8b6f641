"""What this worker takes from its queues, whether it could take more, and which tasks its children run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from celery import signals
from celery.worker import state

_received = 0


def count_received() -> None:
    """Count every message that becomes a task here, and those that cannot or must not."""
    for signal in (signals.task_received, signals.task_unknown, signals.task_rejected, signals.task_revoked):
        signal.connect(count_one, dispatch_uid="recyclery.received")


def count_one(**_: Any) -> None:
    """Count a message."""
    global _received
    _received += 1


def received() -> int:
    """Return how many messages this worker has received since its start."""
    return _received


def consumed_queues(worker: Any) -> list[str]:
    """Return the queues that tasks are taken from: all of the worker's own, except cancelled ones."""
    return list(worker.app.amqp.queues.consume_from)


def is_consuming(worker: Any) -> bool:
    """Tell whether tasks are taken from all queues that the worker is to serve.

    On an event loop this is answered only once the loop runs and so waits for tasks.
    """
    consumer = worker.consumer
    if consumer is None or consumer.task_consumer is None:
        return False
    queues = consumed_queues(worker)
    return bool(queues) and all(map(consumer.task_consumer.consuming_from, queues))


def has_room(worker: Any) -> bool:
    """Tell whether it could take a task: it has fewer than it may run, and nothing else limits it."""
    if worker.consumer is None or worker.app.conf.get("worker_eta_task_limit"):
        return False
    rate_limited = any(
        bucket is not None and bucket.contents for bucket in worker.consumer.task_buckets.values()
    )
    return not rate_limited and len(state.reserved_requests) < worker.pool.num_processes


def active_tasks() -> Iterator[tuple[int, str, str]]:
    """Yield (child's pid, task id, task name) for every task that a child of this worker has accepted."""
    for request in list(state.active_requests):
        pid = getattr(request, "worker_pid", None)
        if pid and pid != os.getpid():
            yield pid, request.id, request.name
