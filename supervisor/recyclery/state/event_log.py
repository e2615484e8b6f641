"""The latest lines of the log, for `status`, `top` and the web page."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

KEPT = 30


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A line of the log, its time, and whether the action succeeded."""

    at: float
    text: str
    done: bool


@dataclass
class EventLog:
    """The last KEPT lines; one that repeats is there once, with its last time."""

    _last: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, at: float, text: str, *, done: bool = True) -> None:
        """Append a line."""
        if self._last and self._last[-1].text == text:
            self._last.pop()
        self._last.append(LoggedEvent(at, text, done))

    def newest_first(self) -> list[LoggedEvent]:
        """Return all lines."""
        return list(reversed(self._last.copy()))
