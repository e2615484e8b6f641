"""Sends tasks as long as faults are dealt: thousands of tiny ones, some long ones, some with a browser."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

from celery import Celery

from chaos.store import Store

ROUND_SECONDS = 0.2
PER_ROUND = 10
MOST_WAITING = 300
MOST_WAITING_SLOW = 4
BURST_BYTES = 500 << 20


class Sender(threading.Thread):
    """A thread of its own: Redis may be away for seconds."""

    def __init__(self, store: Store, folder: Path, *, with_browser: bool) -> None:
        super().__init__(daemon=True)
        self.begun: set[int] = set()
        self.sent: set[int] = set()
        self.doubtful: set[int] = set()
        self._store = store
        self._folder = folder
        self._with_browser = with_browser
        self._app = Celery("chaos-sender", broker=store.url)
        self._numbers = itertools.count(1)
        self._bursts: list[str] = []
        self._ending = threading.Event()

    def want_burst(self, queue: str) -> None:
        """Have a task sent that takes much memory."""
        self._bursts.append(queue)

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
            while self._bursts:
                self._send("burst", self._bursts.pop())

    def _send(self, name: str, queue: str, seconds: float = 0.5) -> None:
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
                ignore_result=True,
            )
        except Exception:  # whether it came through is not known
            self.doubtful.add(task)
        else:
            self.sent.add(task)
