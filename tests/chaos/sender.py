"""Sends tasks as long as faults are dealt: thousands of tiny ones, some long ones, some with a browser."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery

from chaos.store import Store
from recyclery_worker.link import now

ROUND_SECONDS = 0.2
PER_ROUND = 10
MOST_WAITING = 300
MOST_WAITING_SLOW = 4
BURST_BYTES = 500 << 20
DELAYED = 2000
# From when all of them are held at once.
COUNTDOWNS_SECONDS = range(12, 24)


class Sender(threading.Thread):
    """A thread of its own: Redis may be away for seconds."""

    def __init__(self, store: Store, folder: Path, *, with_browser: bool) -> None:
        super().__init__(daemon=True)
        self.begun: set[int] = set()
        self.sent: set[int] = set()
        self.doubtful: set[int] = set()
        self.failing: set[int] = set()
        self.due: dict[int, float] = {}
        self.garbage: dict[int, bytes] = {}
        self._store = store
        self._folder = folder
        self._with_browser = with_browser
        self._app = Celery("chaos-sender", broker=store.url)
        self._numbers = itertools.count(1)
        self._wanted: list[Callable[[], object]] = []
        self._ending = threading.Event()

    def want_burst(self, queue: str) -> None:
        """Have a task sent that takes much memory."""
        self._wanted.append(lambda: self._send("burst", queue))

    def want_memory_error(self) -> None:
        """Have a task sent that raises MemoryError."""
        self._wanted.append(self._send_failing)

    def want_garbage(self, queue: str) -> None:
        """Have every kind of garbage sent."""
        self._wanted.append(lambda: self._send_garbage(queue))

    def want_thousands(self) -> None:
        """Have thousands of tasks sent that wait for their time."""
        self._wanted.append(self._send_delayed)

    def end(self) -> None:
        """Send no more."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def run(self) -> None:
        """Send until told to end."""
        for turn in itertools.count():
            if self._ending.wait(ROUND_SECONDS):
                return
            try:
                full = self._store.waiting("default") > MOST_WAITING
                slow_full = self._store.waiting("low") > MOST_WAITING_SLOW
            except Exception:  # Redis is away
                continue
            if not full:
                for _ in range(PER_ROUND):
                    self._send("count", "default")
                if turn % 5 == 0:
                    self._send("linger", "high", 1 + turn % 4)
            if not slow_full and turn % 5 == 0:
                self._send("browse" if self._with_browser and turn % 10 == 0 else "linger", "low")
            while self._wanted:
                self._wanted.pop()()

    def _send_failing(self) -> None:
        self.failing.add(self._send("exhaust", "default"))

    def _send_delayed(self) -> None:
        for number in range(DELAYED):
            countdown = COUNTDOWNS_SECONDS[number % len(COUNTDOWNS_SECONDS)]
            due = now() + countdown
            task = self._send("count", "default", countdown=countdown)
            self.due[task] = due
            if task in self.doubtful or self._ending.is_set():
                return

    def _send_garbage(self, queue: str) -> None:
        for make in GARBAGE:
            number = next(self._numbers)
            item = make(number)
            try:
                self._store.client.lpush(queue, item)
            except Exception:  # Redis is away
                continue
            self.garbage[number] = item

    def _send(self, name: str, queue: str, seconds: float = 0.5, countdown: float | None = None) -> int:
        task = next(self._numbers)
        arguments: dict[str, tuple[Any, ...]] = {
            "linger": (task, seconds),
            "burst": (task, BURST_BYTES, str(self._folder / f"burst-{task}")),
        }
        self.begun.add(task)
        try:
            self._app.send_task(
                f"chaos_app.{name}",
                arguments.get(name, (task,)),
                queue=queue,
                task_id=str(task),
                retry=False,
                countdown=countdown,
                ignore_result=True,
            )
        except Exception:  # whether it came through is not known
            self.doubtful.add(task)
        else:
            self.sent.add(task)
        return task


def task_without_limits(number: int) -> bytes:
    """Return a task's message at which Celery raises, in the way of one that was given back before."""
    info = {"exchange": "", "routing_key": "default", "redelivered": True}
    headers = {"id": f"garbage-{number}", "task": "chaos_app.count", "timelimit": 5, "redelivered": True}
    properties = {
        "correlation_id": f"garbage-{number}",
        "delivery_tag": f"garbage-{number}",
        "delivery_info": info,
        "delivery_mode": 2,
        "body_encoding": "base64",
    }
    message = {
        "body": "W1tdLCB7fSwge31d",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(message).encode()


GARBAGE: tuple[Callable[[int], bytes], ...] = (
    lambda number: b'"garbage-%d"' % number,
    lambda number: b'["garbage-%d"]' % number,
    lambda number: b'{"properties": {}, "body": "garbage-%d"}' % number,
    lambda number: b"\xff\x00 garbage-%d" % number,
    lambda number: b"[" * 3000 + b"garbage-%d" % number,
    task_without_limits,
)
