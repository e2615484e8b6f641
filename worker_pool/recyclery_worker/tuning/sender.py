"""Sends the tasks of a tuning: as many as are taken, or each at its time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import Task
from kombu import Queue

from recyclery_worker.delivery.registry import BOUNDED, Book, open_book
from recyclery_worker.link import now
from recyclery_worker.tuning.messages import Answer, Arrive, Fill, Order, Quit, Rest, Sweep
from recyclery_worker.tuning.namespace import Space, remove_keys
from recyclery_worker.tuning.registry import RENEW_SECONDS, renew, strike, strike_dead
from recyclery_worker.tuning.task_args import Call
from recyclery_worker.tuning.task_log import Write, open_marks

STEP_SECONDS = 0.02
# So often the sink is emptied: what tasks send must not fill the user's Redis.
DRAIN_SECONDS = 0.5


class Sender:
    """Sends the tasks of one tuning."""

    def __init__(self, app: Any, task: Any, calls: Iterator[Call], space: Space) -> None:
        self._app = app
        self._task = task
        self._calls = calls
        self._space = space
        self._queue = Queue(space.queue, routing_key=space.queue)
        self._number = 0
        self._write: Write | None = None
        self._least = 0
        self._due: list[float] = []
        self._waiting = 0
        self._sent_by_tasks = 0
        self._renewed = self._drained = 0.0
        connection = app.connection_for_write(transport_options=BOUNDED)
        connection.connect()
        self._channel = connection.default_channel
        # The user's own prefix alone: the registry is there for all tunings.
        book = open_book(self._channel)
        self.book = Book(book.client, book.prefix.removesuffix(space.prefix))

    def clean_dead(self) -> list[str]:
        """Remove what dead tunings left; return their names."""
        return [space.name for space in strike_dead(self.book)]

    def follow(self, order: Order) -> Answer:
        """Do as told."""
        match order:
            case Fill(marks, least):
                self._write, self._least, self._due = open_marks(Path(marks)), least, []
                self._waiting = self._sent_by_tasks = 0
            case Arrive(marks, due):
                self._write, self._least, self._due = open_marks(Path(marks)), 0, sorted(due, reverse=True)
                self._sent_by_tasks = 0
            case Rest():
                self._least, self._due = 0, []
                self.drain()
                return Answer(waiting=self._channel._size(self._space.queue), sent_by_tasks=self._sent_by_tasks)
            case Sweep():
                self._least, self._due = 0, []
                return Answer(removed=remove_keys(self.book.client, self._space))
            case Quit():
                return Answer(removed=strike(self.book, self._space))
        return Answer()

    def step(self) -> None:
        """Do what is due."""
        at = now()
        if at - self._renewed >= RENEW_SECONDS:
            renew(self.book, self._space)
            self._renewed = at
        if at - self._drained >= DRAIN_SECONDS:
            self.drain()
            self._drained = at
        while self._due and self._due[-1] <= now():
            self._send(self._due.pop())
        if self._least:
            self._top_up()

    def seconds_to_next(self) -> float:
        """Return for how long nothing is due."""
        return min(STEP_SECONDS, max(0.0, self._due[-1] - now())) if self._due else STEP_SECONDS

    def _top_up(self) -> None:
        # As many as were taken in a few steps must be there at the next.
        waiting = self._channel._size(self._space.queue)
        wanted = max(self._least, 4 * (self._waiting - waiting))
        for _ in range(wanted - waiting):
            self._send(now())
        self._waiting = max(waiting, wanted)

    def _send(self, due: float) -> None:
        assert self._write is not None  # noqa: S101  # there is an order
        self._number += 1
        call = next(self._calls)
        self._write("due", self._number, f"{due:.6f}")
        # Not by the task's own apply_async: one that sends each call only once would send too few.
        Task.apply_async(
            self._task,
            call.args,
            dict(call.kwargs),
            task_id=self._space.task_id(self._number),
            queue=self._queue,
            exchange="",
            routing_key=self._space.queue,
            ignore_result=True,
        )

    def drain(self) -> None:
        """Count and remove what the tasks themselves have sent."""
        sink = self.book.prefix + self._space.prefix + self._space.sink
        with self.book.client.pipeline() as pipe:
            pipe.llen(sink)
            pipe.unlink(sink)
            self._sent_by_tasks += int(pipe.execute()[0])
