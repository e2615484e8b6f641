"""What a tuning and the process that sends its tasks have in common: names in Redis, orders and answers.

A worker under tuning, and what sends it its tasks, have the tuning's name in their environment: it keeps
everything of its own in Redis in keys under a prefix that nobody else uses. Orders and answers are a JSON
object in each line.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from recyclery_worker.delivery.registry import escape

SPACE = "RECYCLERY_TUNE"
MARKS = "RECYCLERY_TUNE_MARKS"
NAME = re.compile(r"[0-9a-f]{12}")
KEYS_AT_A_TIME = 500


@dataclass(frozen=True)
class Space:
    """One tuning's part of Redis, by its name."""

    name: str

    @property
    def prefix(self) -> str:
        """What all its keys begin with, after the prefix that the app itself may use."""
        return f"recyclery:tune:{self.name}:"

    @property
    def queue(self) -> str:
        """The queue that its tasks wait in; by its name too nobody else's."""
        return f"tune-{self.name}"

    @property
    def sink(self) -> str:
        """The queue that takes what the tasks themselves send; nobody consumes from it."""
        return f"tune-{self.name}-sent"

    def task_id(self, number: int) -> str:
        """Return the id of the task of that number."""
        return f"{self.queue}-{number}"

    def number_of(self, task_id: str) -> int | None:
        """Return the number of a task of this tuning's; None of any other."""
        start, _, number = task_id.rpartition("-")
        return int(number) if start == self.queue and number.isdigit() else None


def own_space() -> Space | None:
    """Return the tuning that this process belongs to; None where it is in service."""
    name = os.environ.get(SPACE)
    return Space(name) if name else None


def remove_keys(client: Any, space: Space) -> int:
    """Remove all that a tuning has in Redis; return how many keys that were. Raises redis.RedisError."""
    removed = 0
    batch: list[bytes] = []
    for key in client.scan_iter(match=f"*{escape(space.prefix)}*", count=KEYS_AT_A_TIME):
        batch.append(key)
        if len(batch) == KEYS_AT_A_TIME:
            removed += client.unlink(*batch)
            batch.clear()
    return removed + (client.unlink(*batch) if batch else 0)


class Fill(msgspec.Struct, tag="fill"):
    """Keep at least so many tasks waiting."""

    marks: str
    least: int


class Arrive(msgspec.Struct, tag="arrive"):
    """Send a task at each of these times, in seconds of CLOCK_BOOTTIME."""

    marks: str
    due: list[float]


class Rest(msgspec.Struct, tag="rest"):
    """Send nothing more; answered with what still waits, and what tasks have sent."""


class Sweep(msgspec.Struct, tag="sweep"):
    """Remove all that is left of a level whose worker has ended."""


class Quit(msgspec.Struct, tag="quit"):
    """Remove everything, and end."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What became of an order."""

    error: str = ""
    waiting: int = 0
    sent_by_tasks: int = 0
    removed: int = 0
    cleaned: list[str] = []
    """Dead tunings whose keys were removed, at the start."""


Order = Fill | Arrive | Rest | Sweep | Quit
