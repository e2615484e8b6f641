"""The governor as supervisord's configuration and process, and the base of all supervised processes."""

from __future__ import annotations

import os
import signal
from collections import deque
from typing import Any

from supervisor.dispatchers import PEventListenerDispatcher
from supervisor.options import EventListenerConfig, signame
from supervisor.process import Subprocess
from supervisor.states import ProcessStates

from recyclery.health.heartbeat import HEARTBEAT_BYTE
from recyclery.pid1.output import TAIL_LINES, LineLog

# supervisord waits a second longer before each new start of a program that does not stay up, without a limit.
GOVERNOR_BACKOFF_SECONDS = 30
# The first heartbeat may take longer by this factor: Python and its imports, on a machine short of CPU.
START_FACTOR = 4


class SupervisedProcess(Subprocess):  # type: ignore[misc]  # supervisor has no types
    """A program of ours: its output is logged to the last line, and the newest lines are kept."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.end = ""
        """How it last ended, such as `ended with status 1`."""

    @property
    def running_seconds(self) -> float:
        """How long it has run; 0 while it does not."""
        return self.config.options.clock.time() - self.laststart if self.pid else 0.0

    def describe(self) -> str:
        """Return further details for the log, after a comma."""
        return f", last time it {self.end}" if self.end else ""

    def finish(self, pid: int, sts: int) -> None:
        """Log its last line too, when it has no newline."""
        self.end = format_exit(sts)
        logs = [getattr(dispatcher, "normallog", None) for dispatcher in self.dispatchers.values()]
        super().finish(pid, sts)
        for log in logs:
            if isinstance(log, LineLog):
                log.close()


class GovernorProcess(SupervisedProcess):
    """The governor, which sends a heartbeat at each turn of its loop; silent for too long, it hangs."""

    backoff: int
    has_beaten = False
    _last_beat = 0.0

    def spawn(self) -> int | None:
        """Start it; the time until its first heartbeat counts from now on."""
        self.has_beaten = False
        self._last_beat = self.config.options.clock.time()
        pid: int | None = super().spawn()
        return pid

    def record_beat(self) -> None:
        """Record a heartbeat."""
        self.has_beaten = True
        self._last_beat = self.config.options.clock.time()

    def silent_seconds(self) -> float:
        """Return the time since its last heartbeat, without time in which we were not running ourselves."""
        silent: float = self.config.options.clock.time() - self._last_beat
        return silent

    def hangs(self) -> bool:
        """Return whether it runs and was silent for too long."""
        if self.state not in {ProcessStates.STARTING, ProcessStates.RUNNING}:
            return False
        patience: float = self.config.options.settings.watchdog_seconds
        return self.silent_seconds() > patience * (1 if self.has_beaten else START_FACTOR)

    def restart(self) -> None:
        """Kill it; supervisord starts it again, as after any other death."""
        self._last_beat = self.config.options.clock.time()
        self.signal(signal.SIGKILL)

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Limit the pause between starts."""
        if new_state == ProcessStates.BACKOFF:
            self.backoff = min(self.backoff, GOVERNOR_BACKOFF_SECONDS - 1)
        return super().change_state(new_state, expected)


class BeatDispatcher(PEventListenerDispatcher):  # type: ignore[misc]
    """The governor's standard output: supervisord's event protocol, and heartbeats between its words."""

    def handle_read_event(self) -> None:
        """Take the heartbeats out, and pass the rest to the protocol."""
        data = self.process.config.options.readfd(self.fd)
        if not data:
            self.close()
        if HEARTBEAT_BYTE in data:
            self.process.record_beat()
        self.state_buffer += data.replace(HEARTBEAT_BYTE, b"")
        self.handle_listener_state_change()


class GovernorConfig(EventListenerConfig):  # type: ignore[misc]
    """The governor as supervisord's event listener."""

    def make_process(self, group: Any = None) -> GovernorProcess:
        """Return the process that runs it."""
        process = GovernorProcess(self)
        process.group = group
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the governor's log (its standard error) through the outlet, and read its heartbeats."""
        dispatchers, pipes = super().make_dispatchers(proc)
        dispatchers[pipes["stdout"]] = BeatDispatcher(proc, "stdout", pipes["stdout"])
        log_lines(proc, dispatchers, proc.config.name)
        return dispatchers, pipes


def log_lines(process: SupervisedProcess, dispatchers: dict[int, Any], name: str) -> None:
    """Replace the log files of output dispatchers by a LineLog of that name."""
    options = process.config.options
    for dispatcher in dispatchers.values():
        if hasattr(dispatcher, "normallog"):
            log = LineLog(options.outlet, options.log_format, name, process.tail)
            dispatcher.normallog = dispatcher.childlog = log
            # At level debug supervisord would print each piece of output a second time.
            dispatcher.log_to_mainlog = False


def format_exit(status: int) -> str:
    """Return how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    name = signame(os.WTERMSIG(status))
    # An unexpected SIGKILL is most likely the kernel's OOM killer (gunicorn assumes so too).
    return f"was killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"
