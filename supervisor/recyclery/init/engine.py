"""supervisord's state machine with the container's rules laid over it.

Overridden, and why (line numbers are supervisor 4.3.0's, see docs/architecture.md):
- groups stop at once, not one after the other (supervisord.py:156-172), and the governor last;
- a second TERM or INT kills at once (:305 treats all alike);
- strangers are reaped without a bound and without a line each (:285-300);
- signals wake the loop, which else sleeps up to a second;
- children's output goes line by line through one `Outlet` (loggers.py:102 blocks in write());
- the exit code says how it ended (always 0 upstream).
"""

from __future__ import annotations

import os
import signal
from typing import Any

from supervisor.loggers import Handler, LevelsByName, Logger
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import (
    EventListenerConfig,
    ProcessConfig,
    ServerOptions,
    decode_wait_status,
    signame,
)
from supervisor.process import Subprocess
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from recyclery.config.settings import Pool, Settings
from recyclery.init import exit_codes
from recyclery.init.outlet import LineLog, Outlet
from recyclery.init.programs import GOVERNOR

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
        level, self.logger.level = self.logger.level, LevelsByName.ERRO
        super().openhttpservers(supervisord)
        self.logger.level = level


class OutletHandler(Handler):  # type: ignore[misc]
    """supervisord's log handler over the outlet."""

    def __init__(self, outlet: Outlet) -> None:
        super().__init__()
        self._outlet = outlet

    def emit(self, record: Any) -> None:
        """Pass one record on as a line."""
        self._outlet.put(f"recyclery | {record.msg % record.kw if record.kw else record.msg}\n".encode())

    def close(self) -> None:
        """Nothing to close."""

    def reopen(self) -> None:
        """Nothing to reopen."""

    def remove(self) -> None:
        """Nothing to remove."""


class SignalPipe:
    """Makes the loop's poll return when a signal comes (signal.set_wakeup_fd)."""

    def __init__(self) -> None:
        self.fd, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Tell that the loop should watch it."""
        return True

    def writable(self) -> bool:
        """Never written to from here."""
        return False

    def handle_read_event(self) -> None:
        """Empty the pipe: which signals came is known to supervisord's own handler."""
        os.read(self.fd, 4096)

    def handle_error(self) -> None:
        """Go on."""


class Engine(Supervisor):  # type: ignore[misc]
    """The process engine at PID 1."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.gave_up = False
        self._strangers_reaped = 0

    @property
    def exit_code(self) -> int:
        """How it ended, for the shell."""
        if self.gave_up:
            return exit_codes.GAVE_UP
        killed = any(process.had_to_be_killed for process in self._pool_processes())
        return exit_codes.KILLED if killed else exit_codes.DRAINED

    def _pool_processes(self) -> list[PoolProcess]:
        return [
            process
            for group in self.process_groups.values()
            for process in group.processes.values()
            if isinstance(process, PoolProcess)
        ]

    def runforever(self) -> None:
        """Run until all is stopped."""
        pipe = SignalPipe()
        sockets = self.options.get_socket_map()
        sockets[pipe.fd] = pipe
        sockets[1] = self.options.outlet
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop all pools at once; the governor when they are gone, for it still reaps meanwhile."""
        stop_governor = not any(
            group.get_unstopped_processes() for name, group in self.process_groups.items() if name != GOVERNOR
        )
        for name, group in self.process_groups.items():
            if name != GOVERNOR or stop_governor:
                group.stop_all()

    def ordered_stop_groups_phase_2(self) -> None:
        """Nothing: phase 1 asks them all, and goes on asking."""

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:
        """Collect every child that has ended, ours and strangers alike."""
        while True:
            pid, status = self.options.waitpid()
            if not pid:
                return
            process = self.options.pidhistory.pop(pid, None)
            if process is not None:
                process.finish(pid, status)
            else:
                self._strangers_reaped += 1
                _, message = decode_wait_status(status)
                self.options.logger.debug(f"reaped a stranger, pid {pid} ({message})")
            if once:
                return

    def handle_signal(self) -> None:
        """TERM, INT and QUIT stop; a second one kills; others are for later or for nobody."""
        sig = self.options.get_signal()
        if sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if self.options.mood == SupervisorStates.SHUTDOWN:
                self.options.logger.warn(f"{signame(sig)} again: killing what still runs")
                self._kill_pools()
            else:
                self.options.logger.info(f"{signame(sig)}: stopping all pools")
                self.options.mood = SupervisorStates.SHUTDOWN
        elif sig in (signal.SIGHUP, signal.SIGUSR2):
            self.options.logger.warn(f"{signame(sig)} is not used here and does nothing")

    def _kill_pools(self) -> None:
        for process in self._pool_processes():
            if process.state == ProcessStates.STOPPING:
                process.kill(signal.SIGKILL)

    def tick(self, now: float | None = None) -> None:
        """Besides supervisord's ticks: end when a pool gave up, for a container without its pool is no use."""
        super().tick(now)
        if self.gave_up or self.options.mood == SupervisorStates.SHUTDOWN:
            return
        for process in self._pool_processes():
            if process.state == ProcessStates.FATAL:
                self.gave_up = True
                self.options.logger.critical(
                    f"{process.config.name} did not stay up: giving up; its output above says why"
                )
                self.options.mood = SupervisorStates.SHUTDOWN


def run_engine(settings: Settings, configuration: str) -> int:
    """Run supervisord until it has stopped everything, and return the exit code."""
    outlet = Outlet()
    options = Options(settings, outlet)
    options.realize(["-c", configuration])
    options.first = True
    options.test = False
    engine = Engine(options)
    try:
        engine.main()
    except ExitNow:
        pass
    finally:
        options.close_httpservers()
        outlet.drain(1.0)
    return engine.exit_code
