"""The governor as supervisord's configuration and process, and what it has in common with the workers."""

from __future__ import annotations

import signal
from collections import deque
from typing import Any

from supervisor.dispatchers import PEventListenerDispatcher
from supervisor.options import EventListenerConfig
from supervisor.process import Subprocess
from supervisor.states import ProcessStates

from recyclery.health.heartbeat import BEAT
from recyclery.pid1.exits import describe_end
from recyclery.pid1.output import TAIL_LINES, LineLog

# supervisord waits a second longer before each new start of what does not stay up, without end.
LONGEST_PAUSE_SECONDS = 30
# Python and its imports, on a machine that is short of CPU: the first beat may take so many times as long.
START_FACTOR = 4


class OurProcess(Subprocess):  # type: ignore[misc]  # supervisor has no types
    """What our programs have in common: nothing of their output is lost, and some of it is kept."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.end = ""

    @property
    def running_seconds(self) -> float:
        """How long it has run; 0 where it does not."""
        return self.config.options.clock.time() - self.laststart if self.pid else 0.0

    def describe(self) -> str:
        """Return what more there is to say of it, after a comma."""
        return f", last time it {self.end}" if self.end else ""

    def finish(self, pid: int, sts: int) -> None:
        """Pass on its last words too, when they have no newline."""
        self.end = describe_end(sts)
        logs = [getattr(dispatcher, "normallog", None) for dispatcher in self.dispatchers.values()]
        super().finish(pid, sts)
        for log in logs:
            if isinstance(log, LineLog):
                log.close()


class GovernorProcess(OurProcess):
    """The governor, which gives a beat at each turn of its loop; silent for long, it hangs."""

    backoff: int
    _heard = 0.0
    has_beaten = False

    def spawn(self) -> int | None:
        """Start it, and wait for its first beat from now on."""
        self.has_beaten = False
        self._heard = self.config.options.clock.time()
        pid: int | None = super().spawn()
        return pid

    def hear(self) -> None:
        """Take down a beat."""
        self.has_beaten = True
        self._heard = self.config.options.clock.time()

    def silent_seconds(self) -> float:
        """How long it has given no beat, in seconds in which we ran ourselves."""
        silent: float = self.config.options.clock.time() - self._heard
        return silent

    def hangs(self) -> bool:
        """Tell whether it runs and was silent for too long."""
        if self.state not in {ProcessStates.STARTING, ProcessStates.RUNNING}:
            return False
        patience: float = self.config.options.settings.watchdog_seconds
        return self.silent_seconds() > patience * (1 if self.has_beaten else START_FACTOR)

    def put_down(self) -> None:
        """Kill it; supervisord starts it again, as after any other death."""
        self._heard = self.config.options.clock.time()
        self.signal(signal.SIGKILL)

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Keep the pauses between tries bounded."""
        if new_state == ProcessStates.BACKOFF:
            self.backoff = min(self.backoff, LONGEST_PAUSE_SECONDS - 1)
        return super().change_state(new_state, expected)


class BeatDispatcher(PEventListenerDispatcher):  # type: ignore[misc]
    """The governor's standard output: supervisord's event protocol, with beats between its words."""

    def handle_read_event(self) -> None:
        """Take the beats out, and give the rest to the protocol."""
        data = self.process.config.options.readfd(self.fd)
        if not data:
            self.close()
        if BEAT in data:
            self.process.hear()
        self.state_buffer += data.replace(BEAT, b"")
        self.handle_listener_state_change()


class GovernorConfig(EventListenerConfig):  # type: ignore[misc]
    """The governor as supervisord's event listener."""

    def make_process(self, group: Any = None) -> GovernorProcess:
        """Return the process that runs it."""
        process = GovernorProcess(self)
        process.group = group
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the governor's log (its standard error) through the outlet, and listen for its beats."""
        dispatchers, pipes = super().make_dispatchers(proc)
        dispatchers[pipes["stdout"]] = BeatDispatcher(proc, "stdout", pipes["stdout"])
        log_lines(proc, dispatchers, proc.config.name)
        return dispatchers, pipes


def log_lines(process: OurProcess, dispatchers: dict[int, Any], name: str) -> None:
    """Put a LineLog of that name where an output dispatcher has its log file."""
    options = process.config.options
    for dispatcher in dispatchers.values():
        if hasattr(dispatcher, "normallog"):
            log = LineLog(options.outlet, options.log_format, name, process.tail)
            dispatcher.normallog = dispatcher.childlog = log
            # At level debug supervisord would print each piece of output a second time.
            dispatcher.log_to_mainlog = False
