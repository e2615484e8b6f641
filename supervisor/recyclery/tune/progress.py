"""How far a tuning is, on standard error: one line rewritten on a terminal, else a line for each window."""

from __future__ import annotations

import shutil
import sys
import time

from recyclery.tune.spec import Level

BAR = 20


def format_progress(done: int, total: int, left_seconds: float | None, level: Level | None) -> str:
    """Return the line: windows done, the time left where it is known, and the level that runs now."""
    filled = BAR * done // total if total else BAR
    parts = [f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total} windows"]
    if done < total:
        parts.append("time left not known yet" if left_seconds is None else f"{clock(left_seconds)} left")
    if level is not None:
        parts.append(f"now {format_level(level)}")
    return ", ".join(parts)


def format_level(level: Level) -> str:
    """Return a level as it is written everywhere: concurrency x tasks per child."""
    return f"{level.concurrency} x {level.max_tasks_per_child}"


def clock(seconds: float) -> str:
    """Return a time left as it is read at a glance: 45 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


AGAIN_SECONDS = 0.5


class Progress:
    """What is done is counted in seconds of work, for windows take unlike long."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = 0.0
        self._done = self._total = 0
        self._level: Level | None = None
        self._left_seconds = 0.0
        self._began = time.monotonic()

    def begin(self, done: int, total: int, left_seconds: float, level: Level) -> None:
        """Say which window begins, and how long it and all after it may take."""
        self._done, self._total, self._level = done, max(done + 1, total), level
        self._left_seconds, self._began = left_seconds, time.monotonic()
        if self._live:
            self.go_on("starting")
        else:
            self._print(self._line())

    def go_on(self, text: str) -> None:
        """Say how far what began is; where lines stay, nothing."""
        at = time.monotonic()
        if self._live and at - self._shown >= AGAIN_SECONDS:
            self._shown = at
            line = f"{self._line()}: {text}"
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Say something that stays."""
        self.clear()
        self._print(text)

    def clear(self) -> None:
        """Leave an empty line where the rewritten one was."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self) -> str:
        left = max(5.0, self._left_seconds - (time.monotonic() - self._began))
        return format_progress(self._done, self._total, left, self._level)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)
