"""How far a tuning is, on standard error: one line rewritten on a terminal, else a line for each window."""

from __future__ import annotations

import shutil
import sys
import time

AGAIN_SECONDS = 0.5


class Progress:
    """What is done is counted in seconds of work, for windows take unlike long."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._shown = 0.0
        self._head = ""
        self._left_seconds = 0.0
        self._began = time.monotonic()

    def begin(self, head: str, left_seconds: float) -> None:
        """Say what begins, and how long it and all after it may take."""
        self._head, self._left_seconds, self._began = head, left_seconds, time.monotonic()
        if self._live:
            self.go_on("starting")
        else:
            self._print(f"{head}; {describe_left(left_seconds)}")

    def go_on(self, text: str) -> None:
        """Say how far what began is; where lines stay, nothing."""
        at = time.monotonic()
        if self._live and at - self._shown >= AGAIN_SECONDS:
            self._shown = at
            left = describe_left(self._left_seconds - (at - self._began))
            line = f"{self._head}: {text}; {left}"
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

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def describe_left(seconds: float) -> str:
    """Say how long it may still take."""
    if seconds < 60:
        return f"about {max(5, 5 * round(seconds / 5))} s left"
    minutes = round(seconds / 60)
    return f"about {minutes} min left" if minutes < 90 else f"about {minutes / 60:.1f} h left"
