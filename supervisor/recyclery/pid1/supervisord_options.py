"""supervisord's options and clock, with our programs' classes, our log and our way to fork."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from supervisor.loggers import Handler, LevelsByName, Logger
from supervisor.options import EventListenerConfig, ServerOptions
from supervisor.supervisord import Supervisor

from recyclery.config.settings import Pool, Settings
from recyclery.config.slots import slots_of
from recyclery.pid1.governor_process import GovernorConfig
from recyclery.pid1.output import FORMATS, LogFormat, Outlet
from recyclery.pid1.signals import IGNORED, fork_with_default_signals
from recyclery.pid1.worker_process import WorkerConfig
from supervisor import (  # type: ignore[attr-defined]  # supervisor has no types
    process,
    rpcinterface,
    supervisord,
)

if TYPE_CHECKING:
    from recyclery.pid1.worker_process import WorkerProcess

LEVELS = {
    LevelsByName.CRIT: "critical",
    LevelsByName.ERRO: "error",
    LevelsByName.WARN: "warning",
    LevelsByName.INFO: "info",
}


# The loop runs at least once a second; a longer step means that this process was suspended.
LONGEST_TICK_SECONDS = 2.0


class RunningClock:
    """Counts the seconds in which this process ran, from the time of day at which it began.

    It ignores steps of the wall clock, and the time that the machine or the container was suspended: such time
    must not count against the grace of tasks or the governor's watchdog. Between two calls at most
    LONGEST_TICK_SECONDS are counted.
    """

    def __init__(self, read: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._before = read()
        self._time = time.time()

    def time(self) -> float:
        """Return the time, as time.time() does."""
        now = self._read()
        self._time += min(now - self._before, LONGEST_TICK_SECONDS)
        self._before = now
        return self._time

    def __getattr__(self, name: str) -> object:
        """Return the rest of the module `time`, which this replaces."""
        return getattr(time, name)


def set_clock(clock: RunningClock) -> None:
    """Have supervisord read this clock in place of time.time(), whose steps end a grace period early."""
    for module in (process, rpcinterface, supervisord):
        module.time = clock


class SupervisordOptions(ServerOptions):  # type: ignore[misc]
    """supervisord's options, and the objects that our processes reach through their configuration."""

    def __init__(self, settings: Settings, outlet: Outlet, clock: RunningClock) -> None:
        super().__init__()
        self.settings = settings
        self.outlet = outlet
        self.clock = clock
        self.log_format: LogFormat = FORMATS[settings.log_format]
        # A pipe without a reader polls only as an error, which the following write reports.
        self.poller.WRITE = select.POLLOUT | select.POLLERR
        self.workers: dict[str, WorkerProcess] = {}
        """By slot."""

    def pool_of(self, slot: str) -> Pool:
        """Return the pool of a slot with its current settings."""
        return next(pool for pool in self.settings.pools if slot in slots_of(pool.name))

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        """Build our configuration classes in place of supervisord's."""
        ours = GovernorConfig if klass is EventListenerConfig else WorkerConfig
        return super().processes_from_section(parser, section, group_name, ours)

    def make_logger(self) -> None:
        """Log through the outlet, without supervisord's messages about its own start."""
        self.logger = Logger(self.loglevel)
        self.logger.addHandler(OutletHandler(self.outlet, self.log_format))
        for text in self.parse_warnings:
            self.logger.warn(text)

    def openhttpservers(self, supervisord: Supervisor) -> None:
        """Open the RPC socket, without the warning that it has no password: its mode is 0600."""
        level, self.logger.level = self.logger.level, LevelsByName.CRIT + 1
        super().openhttpservers(supervisord)
        self.logger.level = level

    def setsignals(self) -> None:
        """Handle USR1 too, and ignore a terminal's stray signals."""
        super().setsignals()
        signal.signal(signal.SIGUSR1, self.signal_receiver.receive)
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)

    def fork(self) -> int:
        """Fork a child with default signal dispositions."""
        return fork_with_default_signals()


class OutletHandler(Handler):  # type: ignore[misc]
    """supervisord's log handler over the outlet; its logger filters by level."""

    level = LevelsByName.BLAT

    def __init__(self, outlet: Outlet, log_format: LogFormat) -> None:
        super().__init__()
        self._outlet = outlet
        self._format = log_format

    def emit(self, record: Any) -> None:
        """Write one record."""
        message = record.msg % record.kw if record.kw else record.msg
        self._outlet.put(self._format.own(LEVELS.get(record.level, "debug"), message))

    def close(self) -> None:
        """Nothing to close."""

    def reopen(self) -> None:
        """Nothing to reopen."""

    def remove(self) -> None:
        """Nothing to remove."""
