"""What waits in the queues and who works on them, asked of the broker and of the workers."""

from dataclasses import dataclass
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu.exceptions import OperationalError

from app.infrastructure.celery.routing import QUEUES

ANSWER_SECONDS = 1.0


class NoBroker(RuntimeError):
    """The broker cannot be reached; the text says why."""


@dataclass(frozen=True)
class QueueSeen:
    """A queue, and how many tasks wait in it."""

    name: str
    waiting: int


@dataclass(frozen=True)
class WorkerSeen:
    """A worker as it describes itself."""

    node: str
    queues: str
    concurrency: int
    max_tasks_per_child: str
    running: int


def read_queues(app: Celery) -> list[QueueSeen]:
    """Count what waits in each queue; raises NoBroker."""
    try:
        return [QueueSeen(queue.name, count_waiting(app, queue.name)) for queue in QUEUES]
    except OperationalError as error:
        raise NoBroker(str(error)) from None


def count_waiting(app: Celery, queue: str) -> int:
    """Count a queue's tasks."""
    with app.connection_for_read() as connection:
        try:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except ChannelError:  # Redis has no empty queues
            return 0


def read_workers(app: Celery) -> list[WorkerSeen]:
    """List the workers that answer within a second; raises NoBroker."""
    inspect = app.control.inspect(timeout=ANSWER_SECONDS)
    try:
        queues, stats, active = inspect.active_queues() or {}, inspect.stats() or {}, inspect.active() or {}
    except OperationalError as error:
        raise NoBroker(str(error)) from None
    return [
        WorkerSeen(
            node=node,
            queues=", ".join(sorted(queue["name"] for queue in queues[node])),
            concurrency=stats[node]["pool"]["max-concurrency"],
            max_tasks_per_child=str(stats[node]["pool"].get("max-tasks-per-child", "")),
            running=len(active.get(node, [])),
        )
        for node in sorted(queues.keys() & stats.keys())
    ]
