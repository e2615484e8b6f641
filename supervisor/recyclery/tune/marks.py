"""What the tasks of a level did: when each was to come, began and ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

AGAIN = frozenset({"RETRY", "REJECTED"})
"""Ends after which the same task comes once more."""


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task, its times in seconds of CLOCK_BOOTTIME; None for what has not happened."""

    due: float
    began: float | None = None
    """For the first time: one that died, or is tried again, has been running since then."""
    ended: float | None = None
    failed: bool = False
    error: str = ""


@dataclass
class Marks:
    """The tasks by number."""

    tasks: dict[int, TaskRun] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)
    """When tasks ended, and their numbers, in the order of their ends."""

    def take_in(self, lines: Iterable[str]) -> None:
        """Read further lines of a file of marks."""
        ended = len(self.ends)
        for line in lines:
            kind, number_word, at_word, *rest = line.split()
            number, at = int(number_word), float(at_word)
            if kind == "due":
                self.tasks[number] = TaskRun(at)
            elif number not in self.tasks:
                # Sent for a level before this one.
                continue
            elif kind == "began" and self.tasks[number].began is None:
                self.tasks[number] = replace(self.tasks[number], began=at)
            elif kind == "ended" and rest[0] not in AGAIN and self.tasks[number].ended is None:
                failed, error = rest[0] == "FAILURE", rest[1] if len(rest) > 1 else ""
                self.tasks[number] = replace(self.tasks[number], ended=at, failed=failed, error=error)
                self.ends.append((at, number))
        if len(self.ends) > ended:
            # Those of several children come as they were written.
            self.ends.sort()

    def errors(self) -> Counter[str]:
        """Return how many tasks failed, by the name of their error."""
        return Counter(task.error for _, number in self.ends if (task := self.tasks[number]).failed)

    def ended_between(self, after: float, until: float) -> list[TaskRun]:
        """Return the tasks that ended after one moment, and not after another, in that order."""
        return [self.tasks[number] for at, number in self.ends if after < at <= until]


class MarksFile:
    """A file of marks, read as it grows."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("rb")
        self._rest = b""

    def read(self) -> list[str]:
        """Return the whole lines that came since."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line.decode() for line in lines]

    def close(self) -> None:
        """Close it."""
        self._file.close()
