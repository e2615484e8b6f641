"""A pool's worker in one of its slots, as supervisord's configuration and process.

A pool has one worker in service, in either slot. A worker that starts in the other slot is its successor, which
is not restarted where it does not stay up. A worker that drains then stays stopped, or is restarted.
"""

from __future__ import annotations

import signal
from collections.abc import Iterable
from typing import Any

from supervisor.options import ProcessConfig
from supervisor.states import ProcessStates, SupervisorStates

from recyclery.config.live import starts_alike
from recyclery.config.settings import Pool
from recyclery.config.slots import other_slot
from recyclery.pid1.governor_process import SupervisedProcess, log_lines
from recyclery.pid1.supervisord_conf import format_command, whole_seconds

BANNER = "🔨 Starting Celery Worker\nℹ  Processing queues: {queues}\nℹ  Worker name: {name}\n"
ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL})
IN_SERVICE = frozenset({ProcessStates.STARTING, ProcessStates.RUNNING, ProcessStates.BACKOFF})
# supervisord restarts these.
ENDED_UNASKED = frozenset({ProcessStates.EXITED, ProcessStates.BACKOFF})
# Pause between two starts where a worker does not stay up; upstream it grows by a second each time.
WORKER_BACKOFF_SECONDS = 3.0


class WorkerProcess(SupervisedProcess):
    """A worker's main process: prints a banner at each start, and counts its deaths."""

    delay: float
    had_to_be_killed = False
    draining = False
    """Whether it ends after its tasks, to be replaced."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._deaths: list[float] = []
        self._was_asked_to_end = False
        self._restarts_after_drain = False
        self._is_restart = False
        self.pool: Pool = config.options.pool_of(config.name)
        """The settings of its last start."""
        self._proven: Pool | None = None
        """The settings it last stayed up with."""

    def spawn(self) -> int | None:
        """Print the pool's banner, then start it: with the current settings, after a death the former."""
        self._was_asked_to_end = self.draining = self._restarts_after_drain = False
        options = self.config.options
        self.pool = self._former_settings() if self._is_restart else options.pool_of(self.config.name)
        self.config.command = format_command(options.settings, self.pool, self.config.name)
        self.config.stopwaitsecs = whole_seconds(options.settings.grace_seconds)
        for line in BANNER.format(queues=",".join(self.pool.queues), name=self.pool.name).splitlines():
            options.outlet.put(options.log_format.banner(self.pool.name, line))
        pid: int | None = super().spawn()
        if pid is None and self.spawnerr:
            self.end = f"could not be started: {self.spawnerr}"
        return pid

    def _former_settings(self) -> Pool:
        """Return its own; where it never stayed up with them, those of the worker that it replaced."""
        former = self._other._proven
        if former is None or self._proven is self.pool or starts_alike(self.pool, former):
            return self.pool
        self.config.options.logger.warn(
            f"{self.config.name} did not stay up, and the worker that it was to follow has died: "
            "it starts with the settings of that one"
        )
        return former

    def drain_tasks(self, *, restart: bool) -> None:
        """Have it end after its tasks, and restart it then or not; it is killed after `drain_seconds`."""
        # supervisord takes a deadline further away than stopwaitsecs for a clock that was set back.
        self.config.stopwaitsecs = whole_seconds(self.config.options.settings.drain_seconds)
        self.stop()
        self.draining = True
        self._restarts_after_drain = restart

    def hurry(self) -> None:
        """Shorten a drain to the grace period: everything stops."""
        if self.draining:
            self.draining = self._restarts_after_drain = False
            options = self.config.options
            self.config.stopwaitsecs = whole_seconds(options.settings.grace_seconds)
            self.delay = min(self.delay, options.clock.time() + self.config.stopwaitsecs)

    def transition(self) -> None:
        """Restart it where it ended unasked, or after a drain that ends with a restart."""
        stays_up = self.config.options.mood > SupervisorStates.RESTARTING
        if stays_up and self._restarts_after_drain and self.state == ProcessStates.STOPPED:
            self.spawn()
            return
        self._is_restart = self.state in ENDED_UNASKED
        try:
            super().transition()
        finally:
            self._is_restart = False

    def finish(self, pid: int, sts: int) -> None:
        """Count a death; a successor that did not stay up leaves the pool to its worker."""
        died = is_death(sts, asked=self.killing or self._was_asked_to_end)
        if died and not (self._other_is_in_service() and self.laststart > self._other.laststart):
            self._deaths.append(self.config.options.clock.time())
        super().finish(pid, sts)
        if self.laststop - self.laststart >= self.config.startsecs:
            self._proven = self.pool
        self.draining = False
        if self.state in ENDED_UNASKED and self._other_is_in_service():
            # In another state this one would be restarted as soon as the pool's worker ended.
            self.change_state(ProcessStates.STOPPED)
            self.backoff = 0

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Limit the pause between starts."""
        changed = super().change_state(new_state, expected)
        if new_state == ProcessStates.BACKOFF:
            self.delay = min(self.delay, self.config.options.clock.time() + WORKER_BACKOFF_SECONDS)
        return changed

    def signal(self, sig: int) -> str | None:
        """Send a signal for an operator or the governor; the end that it causes is no death."""
        self._was_asked_to_end |= sig in ENDING_SIGNALS
        problem: str | None = super().signal(sig)
        return problem

    def describe(self) -> str:
        """Return also how often it died."""
        window_seconds = self.config.options.settings.death_window_seconds
        return f", {self.deaths()} deaths in {window_seconds:g} s{super().describe()}"

    def deaths(self) -> int:
        """Return how often the pool's worker died within the window, in either slot."""
        options = self.config.options
        at, window_seconds = options.clock.time(), options.settings.death_window_seconds
        self._deaths = recent(self._deaths, at, window_seconds)
        return len(self._deaths) + len(recent(self._other._deaths, at, window_seconds))

    def gave_up(self) -> bool:
        """Return whether the pool's worker died too often, or does not stay up at all."""
        too_often: bool = self.deaths() >= self.config.options.settings.max_deaths
        return too_often or self.state == ProcessStates.FATAL

    def kill(self, sig: int) -> str | None:
        """Send a signal; a KILL of a stopping worker means that its time was not enough."""
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
        """Return whether it runs with settings that have changed since."""
        return not starts_alike(self.pool, self.config.options.pool_of(self.config.name))

    @property
    def _other(self) -> WorkerProcess:
        """The process in the pool's other slot."""
        workers: dict[str, WorkerProcess] = self.config.options.workers
        return workers[other_slot(self.pool.name, self.config.name)]

    def _other_is_in_service(self) -> bool:
        return self._other.state in IN_SERVICE


class WorkerConfig(ProcessConfig):  # type: ignore[misc]
    """A slot of a pool as supervisord's program."""

    def make_process(self, group: Any = None) -> WorkerProcess:
        """Return the process that runs it."""
        process = WorkerProcess(self)
        process.group = group
        self.options.workers[self.name] = process
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the worker's output through the outlet, under its pool's name."""
        dispatchers, pipes = super().make_dispatchers(proc)
        log_lines(proc, dispatchers, proc.pool.name)
        return dispatchers, pipes


def is_death(status: int, *, asked: bool) -> bool:
    """Return whether a process that ended with this wait status died.

    It did not where it was asked to end. A worker that ends with 0 has drained, to be restarted.
    """
    return not asked and status != 0


def recent(deaths: Iterable[float], now: float, window_seconds: float) -> list[float]:
    """Return the deaths that are not older than the window."""
    return [at for at in deaths if now - at <= window_seconds]
