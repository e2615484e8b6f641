"""supervisord's options, with our programs' classes, our log, our clock and our way to fork."""

from __future__ import annotations

import select
import signal
from typing import TYPE_CHECKING, Any

from supervisor.loggers import Handler, LevelsByName, Logger
from supervisor.options import EventListenerConfig, ServerOptions
from supervisor.supervisord import Supervisor

from recyclery.config.settings import Pool, Settings
from recyclery.config.slots import slots_of
from recyclery.pid1.clock import RunningClock
from recyclery.pid1.governor_process import GovernorConfig
from recyclery.pid1.output import FORMATS, LogFormat, Outlet
from recyclery.pid1.signals import IGNORED, fork_with_default_signals
from recyclery.pid1.worker_process import PoolConfig

if TYPE_CHECKING:
    from recyclery.pid1.worker_process import PoolProcess

LEVELS = {
    LevelsByName.CRIT: "critical",
    LevelsByName.ERRO: "error",
    LevelsByName.WARN: "warning",
    LevelsByName.INFO: "info",
}


class Options(ServerOptions):  # type: ignore[misc]
    """What supervisord's parts ask for, and what ours find through their configuration."""

    def __init__(self, settings: Settings, outlet: Outlet, clock: RunningClock) -> None:
        super().__init__()
        self.settings = settings
        self.outlet = outlet
        self.clock = clock
        self.log_format: LogFormat = FORMATS[settings.log_format]
        # A pipe that nobody reads any more polls as an error alone; the write that follows tells.
        self.poller.WRITE = select.POLLOUT | select.POLLERR
        # By slot, as they are made.
        self.workers: dict[str, PoolProcess] = {}

    def pool_of(self, slot: str) -> Pool:
        """Return the pool that a slot is of, as the settings are now."""
        return next(pool for pool in self.settings.pools if slot in slots_of(pool.name))

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        """Build our configuration classes in place of supervisord's."""
        ours = GovernorConfig if klass is EventListenerConfig else PoolConfig
        return super().processes_from_section(parser, section, group_name, ours)

    def make_logger(self) -> None:
        """Log through the outlet; what supervisord says of itself at start is not worth a line here."""
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
        """Take USR1 too, and let a terminal's stray signals pass."""
        super().setsignals()
        signal.signal(signal.SIGUSR1, self.signal_receiver.receive)
        for signum in IGNORED:
            signal.signal(signum, signal.SIG_IGN)

    def fork(self) -> int:
        """Fork, so that the child begins as if nobody had touched its signals."""
        return fork_with_default_signals()


class OutletHandler(Handler):  # type: ignore[misc]
    """supervisord's log handler over the outlet; which levels there are to log, its logger knows."""

    level = LevelsByName.BLAT

    def __init__(self, outlet: Outlet, log_format: LogFormat) -> None:
        super().__init__()
        self._outlet = outlet
        self._format = log_format

    def emit(self, record: Any) -> None:
        """Pass one record on."""
        message = record.msg % record.kw if record.kw else record.msg
        self._outlet.put(self._format.own(LEVELS.get(record.level, "debug"), message))

    def close(self) -> None:
        """Nothing to close."""

    def reopen(self) -> None:
        """Nothing to reopen."""

    def remove(self) -> None:
        """Nothing to remove."""
