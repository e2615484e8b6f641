"""What `recyclery tune` and the process that sends its tasks share: the namespace in Redis, and their messages.

Each tuning keeps everything in Redis under a key prefix of its own. The tuning's name is in the environment of
its workers and of its sender. Orders and answers are one JSON object a line.

The log of its tasks has a line for each that was due, began or ended: `due NUMBER SECONDS`, `began NUMBER
SECONDS PID`, `ended NUMBER SECONDS STATE [ERROR]`, in seconds of CLOCK_BOOTTIME.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

SPACE_VARIABLE = "RECYCLERY_TUNE"
MARKS_VARIABLE = "RECYCLERY_TUNE_MARKS"
SPACE_NAME = re.compile(r"[0-9a-f]{12}")

Write = Callable[..., None]


@dataclass(frozen=True)
class Space:
    """One tuning's namespace in Redis, by the tuning's name."""

    name: str

    @property
    def prefix(self) -> str:
        """The prefix of all its keys, after the prefix that the app itself may use."""
        return f"recyclery:tune:{self.name}:"

    @property
    def queue(self) -> str:
        """The queue of its tasks; also the name is its own."""
        return f"tune-{self.name}"

    @property
    def sink(self) -> str:
        """The queue that takes what the tasks themselves send; nobody consumes it."""
        return f"tune-{self.name}-sent"

    def task_id(self, number: int) -> str:
        return f"{self.queue}-{number}"

    def number_of(self, task_id: str) -> int | None:
        start, _, number = task_id.rpartition("-")
        return int(number) if start == self.queue and number.isdigit() else None


def own_space() -> Space | None:
    """Return the tuning that this process belongs to; None in production."""
    name = os.environ.get(SPACE_VARIABLE)
    return Space(name) if name else None


def open_log(path: Path) -> Write:
    """Return a function that writes its arguments as a line; lines of several processes do not mix."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(*fields: object) -> None:
        os.write(file, f"{' '.join(map(str, fields))}\n".encode())

    return write


class Fill(msgspec.Struct, tag="fill"):
    """Keep at least `least` tasks waiting."""

    marks: str
    least: int


class Arrive(msgspec.Struct, tag="arrive"):
    """Send a task at each of these times, in seconds of CLOCK_BOOTTIME."""

    marks: str
    due: list[float]


class Rest(msgspec.Struct, tag="rest"):
    """Send nothing more; answered with how many messages the tasks themselves sent."""


class Sweep(msgspec.Struct, tag="sweep"):
    """Remove what is left of a level whose worker has ended."""


class EndTuning(msgspec.Struct, tag="quit"):
    """Remove everything, and end."""


class Answer(msgspec.Struct, omit_defaults=True):
    """The result of an order."""

    error: str = ""
    sent_by_tasks: int = 0
    cleaned: list[str] = []  # Dead tunings whose keys were removed at the start


SenderOrder = Fill | Arrive | Rest | Sweep | EndTuning
