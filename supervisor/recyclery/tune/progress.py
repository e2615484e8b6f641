"""How far a tuning is, on standard error: one line rewritten on a terminal, else a line for each window."""

import shutil
import sys
import time

from recyclery.tune.spec import Level

BAR = 20
UPDATE_SECONDS = 0.5


class Progress:
    """The line counts windows; the time left is estimated, for windows are not equally long."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = 0.0
        self._done, self._total, self._level = 0, 1, ""
        self._ends = 0.0

    def begin(self, done: int, total: int, left_seconds: float, level: Level) -> None:
        """Show which window begins, and how long it and all after it may take."""
        self._done, self._total, self._level = done, max(done + 1, total), str(level)
        self._ends = time.monotonic() + left_seconds
        if self._live:
            self.update("starting")
        else:
            print(self._line(), file=sys.stderr, flush=True)

    def update(self, text: str) -> None:
        """Show how far the window is; on a terminal only."""
        at = time.monotonic()
        if self._live and at - self._shown >= UPDATE_SECONDS:
            self._shown = at
            line = f"{self._line()}: {text}"
            sys.stderr.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Erase the line that is rewritten."""
        if self._live:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _line(self) -> str:
        left = max(5.0, self._ends - time.monotonic())
        return format_progress(self._done, self._total, left, self._level)


def format_progress(done: int, total: int, left_seconds: float, level: str) -> str:
    """Return the line: windows done, the time left, and the level that runs now."""
    bar = "#" * (BAR * done // total)
    return f"[{bar:.<{BAR}}] {done}/{total} windows, {format_left(left_seconds)} left, now {level}"


def format_left(seconds: float) -> str:
    """Return a time such as 45 s, 12 min, 1 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
