"""Runs a command in a cage and controls it from outside."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from typing import Self

from recyclery.sandbox.cgroups import CannotCageError, SandboxCgroup, make_cgroup
from recyclery.sandbox.guard import refused_namespaces

# Reached only if the guard hangs; an emulated machine needs half of it.
GUARD_START_SECONDS = 60.0
CLOSE_SECONDS = 30.0


class Cage:
    """One command under a guard: PID 1 of a namespace in `cgroup`, or a plain process without one.

    Leaving the `with` block kills everything that the command started and removes the cgroup. If this process
    dies, the guard sees its standard input close and does the same.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        cgroup: SandboxCgroup | None = None,
    ) -> None:
        self.cgroup = cgroup
        self.pid = 0
        self.status: int | None = None
        self._rest = b""
        guard = [sys.executable, "-m", "recyclery.sandbox.guard"]
        if cgroup is not None:
            guard += ["--cgroup", str(cgroup.path), "--version", str(cgroup.version)]
        with log.open("ab") as output:
            self._guard = subprocess.Popen(
                [*guard, "--", *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                cwd=folder,
                env=dict(environment),
                # Ctrl-C at the terminal must reach only this process, which then closes the cage.
                start_new_session=True,
            )
        self._read_reports(GUARD_START_SECONDS, lambda: self.pid != 0)
        if self.pid == 0:
            self.close()
            raise CannotCageError(f"{command[0]} was not started; see {log}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def guard_pid(self) -> int:
        """The guard's PID; all processes of the cage are its descendants."""
        return self._guard.pid

    def terminate(self) -> None:
        """Send TERM to the command alone."""
        if self._guard.poll() is None:
            self._guard.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the command, and with it its whole namespace."""
        # The guard reports the status when it reaps the command; until then the PID is still the command's.
        if self.wait(0) is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def wait(self, timeout_seconds: float) -> int | None:
        """Return the command's exit status (128 + n for a signal); None if it still runs after that time."""
        self._read_reports(timeout_seconds, lambda: self.status is not None)
        return self.status

    def close(self) -> None:
        """End everything in the cage and remove its cgroup."""
        assert self._guard.stdin is not None  # noqa: S101 - made with a pipe
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.close()
        try:
            self._guard.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            # The command dies with its guard (PR_SET_PDEATHSIG).
            self._guard.kill()
            self._guard.wait()
        if self._guard.stdout is not None:
            self._guard.stdout.close()
        if self.cgroup is not None:
            self.cgroup.remove()

    def _read_reports(self, timeout_seconds: float, done: Callable[[], bool]) -> None:
        if self._guard.stdout is None or self._guard.stdout.closed:
            return
        deadline = time.monotonic() + timeout_seconds
        with DefaultSelector() as selector:
            selector.register(self._guard.stdout, EVENT_READ)
            while not done():
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return
                data = os.read(self._guard.stdout.fileno(), 4096)
                if not data:
                    return
                *lines, self._rest = (self._rest + data).split(b"\n")
                for line in lines:
                    word, _, number = line.partition(b" ")
                    if word == b"started":
                        self.pid = int(number)
                    elif word == b"exit":
                        self.status = int(number)


def make_cage_cgroup(limit_bytes: int) -> SandboxCgroup:
    """Make the cgroup of a cage; raises CannotCageError, also where no namespaces can be made."""
    if reason := refused_namespaces():
        raise CannotCageError(reason)
    return make_cgroup(limit_bytes)


def last_lines(log: Path, count: int = 15) -> str:
    """Return the end of a command's log, which shows why it ended."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-count:])
    except OSError:
        return ""
