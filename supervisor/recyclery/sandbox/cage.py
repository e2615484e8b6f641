"""Runs a command in a cage and controls it from outside."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

# Reached only if the guard hangs; an emulated machine needs half of it.
GUARD_START_SECONDS = 60.0
CLOSE_SECONDS = 30.0


class CannotCageError(Exception):
    """The kernel, or the container around us, allows no cage; the message says why."""


class Cage:
    """One command under a guard.

    Leaving the `with` block kills everything that the command started. If this process dies, the guard sees its
    standard input close and does the same.
    """

    guard: Sequence[str] = ("recyclery.sandbox.guard",)
    """The guard's module, and its arguments before the command."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.pid = 0
        self.status: int | None = None
        self._rest = b""
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-m", *self.guard, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=folder,
                env=dict(environment),
                # Ctrl-C at the terminal must reach only this process, which then closes the cage.
                start_new_session=True,
            )
        self.guard_pid = self._guard.pid
        """All processes of the cage are its descendants."""
        assert self._guard.stdin is not None  # noqa: S101 - made with a pipe
        assert self._guard.stdout is not None  # noqa: S101 - made with a pipe
        self._input, self._reports = self._guard.stdin, self._guard.stdout
        self._read_reports(GUARD_START_SECONDS, lambda: self.pid != 0)
        if self.pid == 0:
            self.close()
            raise CannotCageError(f"{command[0]} was not started; see {log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def terminate(self) -> None:
        """Send TERM to the command alone."""
        if self._guard.poll() is None:
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        # The guard reports the status when it reaps the command; until then the PID is still the command's.
        if self.wait(0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> int | None:
        """Return the command's exit status (128 + n for a signal); None if it still runs after that time."""
        self._read_reports(timeout_seconds, lambda: self.status is not None)
        return self.status

    def close(self) -> None:
        """End everything in the cage."""
        with contextlib.suppress(BrokenPipeError):
            self._input.close()
        try:
            self._guard.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            # The command dies with its guard (PR_SET_PDEATHSIG).
            self._guard.kill()
            self._guard.wait()
        self._reports.close()

    def _read_reports(self, timeout_seconds: float, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not self._reports.closed and not done():
            readable, _, _ = select.select([self._reports], [], [], max(0.0, deadline - time.monotonic()))
            if not readable or not (data := os.read(self._reports.fileno(), 4096)):
                return
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                word, _, number = line.partition(b" ")
                if word == b"started":
                    self.pid = int(number)
                elif word == b"exit":
                    self.status = int(number)


def last_lines(log: Path) -> str:
    """Return the end of a command's log, which shows why it ended."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    except OSError:
        return ""
