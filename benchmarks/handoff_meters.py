"""handoff_meters: not a benchmark; a stream of tasks, and who waits for them by Redis's own account."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from celery import Celery

from benchmarks.handoff_app import app as stamp_app

QUEUE = "high"
ASKING = (b' "BRPOP" ', b' "EVALSHA" ')


class Consumers:
    """What Redis's MONITOR tells of questions for messages, by our script or by BRPOP: for each connection its
    first and its last. Times are Redis's.
    """

    def __init__(self, port: int) -> None:
        self.spans: dict[bytes, tuple[float, float]] = {}
        self._link = socket.create_connection(("127.0.0.1", port))
        self._link.sendall(b"MONITOR\r\n")
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._link.close()

    def _listen(self) -> None:
        # With the worker's other queues, in any order: kombu asks for them by turns.
        queue = f'"{QUEUE}"'.encode()
        with self._link.makefile("rb") as lines:
            for line in lines:
                # +1700000000.123456 [0 127.0.0.1:40000] "BRPOP" "high" ...
                if any(command in line for command in ASKING) and queue in line:
                    when, _, address = line[1:].split(b" ", 3)[:3]
                    first, _ = self.spans.get(address, (float(when), 0.0))
                    self.spans[address] = first, float(when)


def until_told_to_leave(asking: list[tuple[float, float]], leaves: list[float]) -> list[tuple[float, float]]:
    """Return from when to when each worker consumed: from its first question until it was told to leave.

    A worker that waits to be woken, or has its hands full, asks nothing for a while and consumes. Workers leave
    in the order in which they came. Raises ValueError where not each that came has left.
    """
    return [
        (first, max(last, leave)) for (first, last), leave in zip(sorted(asking), sorted(leaves), strict=True)
    ]


def uncovered(spans: list[tuple[float, float]], begin: float, end: float) -> tuple[float, float]:
    """Return the longest time and all the time between `begin` and `end` that none of the spans covers."""
    longest = total = 0.0
    reached = begin
    for first, last in [*sorted(spans), (end, end)]:
        gap = max(0.0, min(first, end) - reached)
        longest, total = max(longest, gap), total + gap
        reached = max(reached, last)
    return longest, total


class Stream:
    """Sends a task every so often; one that comes late because the machine was busy is made up for at once."""

    def __init__(self, sender: Celery, every_seconds: float) -> None:
        self.sent = 0
        self._sender = sender
        self._every_seconds = every_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more."""
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            arguments = (self.sent, time.monotonic())
            self._sender.send_task("benchmarks.handoff_app.stamp", arguments, queue=QUEUE, ignore_result=True)
            self.sent += 1
            due += self._every_seconds


@contextmanager
def streaming(url: str, every_seconds: float) -> Iterator[Stream]:
    """Send to the queue until the block ends."""
    sender = Celery(stamp_app.main, broker=url)
    stream = Stream(sender, every_seconds)
    stream.start()
    try:
        yield stream
    finally:
        stream.stop()
        sender.close()
