"""What was done and has happened lately, for those who look on; the log has all of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT = 30


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A line of the log, when it was written, and whether what it tells of came about."""

    at: float
    text: str
    done: bool


@dataclass
class EventLog:
    """The last happenings. One that is told of over and over stands there once, as of the last time."""

    _last: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, at: float, text: str, *, done: bool = True) -> None:
        """Take one down."""
        if self._last and self._last[-1].text == text:
            self._last.pop()
        self._last.append(LoggedEvent(at, text, done))

    def newest_first(self) -> list[LoggedEvent]:
        """Return them all."""
        return list(reversed(self._last.copy()))
