"""Our programs as supervisord's configuration and process classes, with their output going to one outlet."""

from __future__ import annotations

import select
import signal
from datetime import datetime
from typing import Any

from supervisor.loggers import Handler, LevelsByName, Logger
from supervisor.options import EventListenerConfig, ProcessConfig, ServerOptions
from supervisor.process import Subprocess
from supervisor.states import ProcessStates
from supervisor.supervisord import Supervisor

from recyclery.config.settings import Pool, Settings
from recyclery.init.outlet import LineLog, Outlet

BANNER = "🔨 Starting Celery Worker\nℹ  Processing queues: {queues}\nℹ  Worker name: {name}\n"


class PoolProcess(Subprocess):  # type: ignore[misc]  # supervisor has no types
    """A pool's main process: announces each start, remembers whether it had to be killed."""

    had_to_be_killed = False

    def spawn(self) -> int | None:
        """Print the pool's banner, then start it."""
        pool = self.config.options.pools[self.config.name]
        for line in BANNER.format(queues=",".join(pool.queues), name=pool.name).splitlines():
            self.config.options.outlet.put(f"{line}\n".encode())
        pid: int | None = super().spawn()
        return pid

    def finish(self, pid: int, sts: int) -> None:
        """Pass on its last words too, when they have no newline."""
        logs = [getattr(dispatcher, "normallog", None) for dispatcher in self.dispatchers.values()]
        super().finish(pid, sts)
        for log in logs:
            if isinstance(log, LineLog):
                log.close()

    def kill(self, sig: int) -> str | None:
        """Send a signal; a KILL while it drains means that the grace was not enough."""
        if sig == signal.SIGKILL and self.state == ProcessStates.STOPPING:
            self.had_to_be_killed = True
        problem: str | None = super().kill(sig)
        return problem


class PoolConfig(ProcessConfig):  # type: ignore[misc]
    """A pool as supervisord's program."""

    def make_process(self, group: Any = None) -> PoolProcess:
        """Return the process that runs it."""
        process = PoolProcess(self)
        process.group = group
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the pool's output through the outlet."""
        return log_lines(self, *super().make_dispatchers(proc))


class GovernorConfig(EventListenerConfig):  # type: ignore[misc]
    """The governor as supervisord's event listener."""

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the governor's log (its standard error) through the outlet."""
        return log_lines(self, *super().make_dispatchers(proc))


def log_lines(config: Any, dispatchers: dict[int, Any], pipes: Any) -> tuple[dict[int, Any], Any]:
    """Put a LineLog where an output dispatcher has its log file."""
    for dispatcher in dispatchers.values():
        if hasattr(dispatcher, "normallog"):
            log = LineLog(config.options.outlet, config.name)
            dispatcher.normallog = dispatcher.childlog = log
    return dispatchers, pipes


class Options(ServerOptions):  # type: ignore[misc]
    """supervisord's options, with our programs' classes and our log."""

    def __init__(self, settings: Settings, outlet: Outlet) -> None:
        super().__init__()
        self.outlet = outlet
        # A pipe that nobody reads any more polls as an error alone; the write that follows tells.
        self.poller.WRITE = select.POLLOUT | select.POLLERR
        self.pools: dict[str, Pool] = {pool.name: pool for pool in settings.pools}

    def processes_from_section(self, parser: Any, section: str, group_name: str, klass: Any = None) -> Any:
        """Build our configuration classes in place of supervisord's."""
        ours = GovernorConfig if klass is EventListenerConfig else PoolConfig
        return super().processes_from_section(parser, section, group_name, ours)

    def make_logger(self) -> None:
        """Log through the outlet; what supervisord says of itself at start is not worth a line here."""
        self.logger = Logger(self.loglevel)
        self.logger.addHandler(OutletHandler(self.outlet))
        for text in self.parse_warnings:
            self.logger.warn(text)

    def openhttpservers(self, supervisord: Supervisor) -> None:
        """Open the RPC socket, without the warning that it has no password: its mode is 0600."""
        level, self.logger.level = self.logger.level, LevelsByName.CRIT + 1
        super().openhttpservers(supervisord)
        self.logger.level = level


class OutletHandler(Handler):  # type: ignore[misc]
    """supervisord's log handler over the outlet."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: Any) -> None:
        """Pass one record on as a line."""
        message = record.msg % record.kw if record.kw else record.msg
        # As Celery's lines begin.
        at = datetime.now().isoformat(" ", "milliseconds").replace(".", ",")
        self._outlet.put(f"recyclery | [{at}] {message}\n".encode())

    def close(self) -> None:
        """Nothing to close."""

    def reopen(self) -> None:
        """Nothing to reopen."""

    def remove(self) -> None:
        """Nothing to remove."""
