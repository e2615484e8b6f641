"""A pool's worker in one of its slots, as supervisord's configuration and process.

A pool has one worker in service, in either slot. Another one that starts is its successor, which is not started
again where it does not stay up. One that was told to leave drains, and then stays away or starts anew.
"""

from __future__ import annotations

import signal
from typing import Any

from supervisor.options import ProcessConfig
from supervisor.states import ProcessStates, SupervisorStates

from recyclery.config.live import starts_alike
from recyclery.config.settings import Pool
from recyclery.config.slots import other_slot
from recyclery.pid1.exits import is_death, recent
from recyclery.pid1.governor_process import OurProcess, log_lines
from recyclery.pid1.supervisord_conf import whole_seconds, worker_words

BANNER = "🔨 Starting Celery Worker\nℹ  Processing queues: {queues}\nℹ  Worker name: {name}\n"
ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL})
IN_SERVICE = frozenset({ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.BACKOFF})
# supervisord starts these again by itself.
ENDED_BY_ITSELF = frozenset({ProcessStates.EXITED, ProcessStates.BACKOFF})
# Between two starts where a worker does not stay up; a second more each time upstream, without an end.
LONGEST_PAUSE_SECONDS = 3.0


class PoolProcess(OurProcess):
    """A worker's main process: announces each start, remembers its deaths and whether it had to be killed."""

    delay: float
    had_to_be_killed = False
    draining = False
    """Whether it was told to leave after its tasks, to be replaced."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._deaths: list[float] = []
        self._told_to_end = False
        self._starts_anew = False
        self._is_again = False
        self.pool: Pool = config.options.pool_of(config.name)
        """With what it was started last."""
        self._proven: Pool | None = None
        """With what it last stayed up."""

    def spawn(self) -> int | None:
        """Print the pool's banner, then start it: as the settings are now, or as before where it only died."""
        self._told_to_end = self.draining = self._starts_anew = False
        options = self.config.options
        self.pool = self._former_settings() if self._is_again else options.pool_of(self.config.name)
        self.config.command = worker_words(options.settings, self.pool, self.config.name)
        self.config.stopwaitsecs = whole_seconds(options.settings.grace_seconds)
        for line in BANNER.format(queues=",".join(self.pool.queues), name=self.pool.name).splitlines():
            options.outlet.put(options.log_format.banner(self.pool.name, line))
        pid: int | None = super().spawn()
        if pid is None and self.spawnerr:
            self.end = f"could not be started: {self.spawnerr}"
        return pid

    def _former_settings(self) -> Pool:
        """Its own; or, where it never stayed up with them, those of the worker that it was to follow."""
        former = self._other._proven
        if former is None or self._proven is self.pool or starts_alike(self.pool, former):
            return self.pool
        self.config.options.logger.warn(
            f"{self.config.name} did not stay up, and the worker that it was to follow has died: "
            "it starts with the settings of that one"
        )
        return former

    def leave(self) -> None:
        """Have it end after its tasks, for another worker has taken over; killed after `drain_seconds`."""
        self._drain_away()

    def renew(self) -> None:
        """Have it end after its tasks and start anew; killed after `drain_seconds`."""
        self._drain_away()
        self._starts_anew = True

    def _drain_away(self) -> None:
        # supervisord looks at both: at a deadline further away than this it thinks that the clock was set back.
        self.config.stopwaitsecs = whole_seconds(self.config.options.settings.drain_seconds)
        self.stop()
        self.draining = True

    def hurry(self) -> None:
        """End a drain within the grace: all stops."""
        if self.draining:
            self.draining = self._starts_anew = False
            options = self.config.options
            self.config.stopwaitsecs = whole_seconds(options.settings.grace_seconds)
            self.delay = min(self.delay, options.clock.time() + self.config.stopwaitsecs)

    def transition(self) -> None:
        """Start it again where it ended by itself, or is to start anew."""
        stays_up = self.config.options.mood > SupervisorStates.RESTARTING
        if stays_up and self._starts_anew and self.state == ProcessStates.STOPPED:
            self.spawn()
            return
        self._is_again = self.state in ENDED_BY_ITSELF
        try:
            super().transition()
        finally:
            self._is_again = False

    def finish(self, pid: int, sts: int) -> None:
        """Count it where it is a death; a successor that did not stay up leaves the pool to its worker."""
        died = is_death(sts, asked=self.killing or self._told_to_end)
        if died and not (self._other_serves() and self._is_younger()):
            self._deaths.append(self.config.options.clock.time())
        super().finish(pid, sts)
        if self.laststop - self.laststart >= self.config.startsecs:
            self._proven = self.pool
        self.draining = False
        if self.state in ENDED_BY_ITSELF and self._other_serves():
            # The pool has its worker. Left as it is, this one would be tried again as soon as that ended.
            self.change_state(ProcessStates.STOPPED)
            self.backoff = 0

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Keep the pauses between tries bounded; the tries are counted on."""
        changed = super().change_state(new_state, expected)
        if new_state == ProcessStates.BACKOFF:
            self.delay = min(self.delay, self.config.options.clock.time() + LONGEST_PAUSE_SECONDS)
        return changed

    def signal(self, sig: int) -> str | None:
        """Send what an operator or the governor asks for; an end that comes of it is no death."""
        self._told_to_end |= sig in ENDING
        problem: str | None = super().signal(sig)
        return problem

    def describe(self) -> str:
        """Return besides how often it died."""
        window_seconds = self.config.options.settings.death_window_seconds
        return f", {self.deaths()} deaths in {window_seconds:g} s{super().describe()}"

    def deaths(self) -> int:
        """How often the pool's worker died within the window, in either slot."""
        options = self.config.options
        at, window_seconds = options.clock.time(), options.settings.death_window_seconds
        self._deaths = recent(self._deaths, at, window_seconds)
        return len(self._deaths) + len(recent(self._other._deaths, at, window_seconds))

    def gave_up(self) -> bool:
        """Tell whether the pool's worker died too often, or does not stay up at all."""
        too_often: bool = self.deaths() >= self.config.options.settings.max_deaths
        return too_often or self.state == ProcessStates.FATAL

    def kill(self, sig: int) -> str | None:
        """Send a signal; a KILL while it drains means that the time it had was not enough."""
        options = self.config.options
        if sig == signal.SIGKILL and self.state == ProcessStates.STOPPING:
            self.had_to_be_killed |= options.mood == SupervisorStates.SHUTDOWN
            if self.draining:
                options.logger.warn(
                    f"{self.config.name}: still not done {options.settings.drain_seconds:g} s after it was "
                    "told to leave (drain_seconds): killed, and its tasks go back to their queues"
                )
        problem: str | None = super().kill(sig)
        return problem

    def is_outdated(self) -> bool:
        """Tell whether it runs with settings that have changed since."""
        return not starts_alike(self.pool, self.config.options.pool_of(self.config.name))

    @property
    def _other(self) -> PoolProcess:
        """What is in the pool's other slot."""
        workers: dict[str, PoolProcess] = self.config.options.workers
        return workers[other_slot(self.pool.name, self.config.name)]

    def _other_serves(self) -> bool:
        return self._other.state in IN_SERVICE

    def _is_younger(self) -> bool:
        younger: bool = self.laststart > self._other.laststart
        return younger


class PoolConfig(ProcessConfig):  # type: ignore[misc]
    """A slot of a pool as supervisord's program."""

    def make_process(self, group: Any = None) -> PoolProcess:
        """Return the process that runs it."""
        process = PoolProcess(self)
        process.group = group
        self.options.workers[self.name] = process
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the worker's output through the outlet, under its pool's name."""
        dispatchers, pipes = super().make_dispatchers(proc)
        log_lines(proc, dispatchers, proc.pool.name)
        return dispatchers, pipes
