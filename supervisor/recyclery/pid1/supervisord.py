"""supervisord's state machine, with the rules of a container.

Overridden, and why (line numbers are supervisor 4.3.0's, see docs/architecture.md):
- groups stop together, not one after the other (supervisord.py:156-172), and the governor last;
- a second TERM or INT kills at once (:305 treats all alike);
- orphans of other processes are reaped without a limit and without a log line each (:285-300);
- signals wake the loop, which upstream sleeps up to a second;
- children's output goes line by line through one `Outlet` (loggers.py:102 blocks in write());
- deadlines go by a clock that does not jump (`supervisord_options.RunningClock`; time.time() upstream);
- a pool has one worker in service in one of two slots, and a successor in the other while it is replaced
  (`worker_process.py`; upstream a program that ends is always restarted);
- a governor that hangs is killed, a pool that keeps dying stops everything (restarted for ever upstream);
- the exit code shows how it ended (always 0 upstream).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TypeVar

from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import signame
from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.live import follow_file
from recyclery.config.settings import Settings
from recyclery.config.stored import read_settings, write_settings
from recyclery.pid1.governor_process import GovernorProcess, SupervisedProcess
from recyclery.pid1.output import FORMATS, Outlet
from recyclery.pid1.signals import SignalPipe
from recyclery.pid1.supervisord_conf import GOVERNOR
from recyclery.pid1.supervisord_options import RunningClock, SupervisordOptions, set_clock
from recyclery.pid1.worker_process import WorkerProcess

# Some senders (coreutils' timeout) signal the process and then its whole group: that counts as one request.
SAME_REQUEST_SECONDS = 1.0


ProcessKind = TypeVar("ProcessKind", bound=SupervisedProcess)


class Engine(Supervisor):  # type: ignore[misc]
    """supervisord at PID 1."""

    def __init__(self, options: SupervisordOptions, settings: Settings, reload: Callable[[], Settings]) -> None:
        super().__init__(options)
        self._runtime_dir = settings.runtime_dir
        self._reload = reload
        self.gave_up = False
        self._stop_requested: float | None = None

    @property
    def exit_code(self) -> int:
        """The exit code of `recyclery run`."""
        if self.gave_up:
            return exit_codes.GAVE_UP
        killed = any(process.had_to_be_killed for process in self._processes(WorkerProcess))
        return exit_codes.KILLED if killed else exit_codes.DRAINED

    def _processes(self, kind: type[ProcessKind]) -> list[ProcessKind]:
        processes = (process for group in self.process_groups.values() for process in group.processes.values())
        return [process for process in processes if isinstance(process, kind)]

    def runforever(self) -> None:
        """Run until everything has stopped."""
        pipe = SignalPipe()
        sockets = self.options.get_socket_map()
        sockets[pipe.fd] = pipe
        sockets[self.options.outlet.fd] = self.options.outlet
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop all pools together, and the governor after them: it reaps browsers meanwhile."""
        stop_governor = not any(
            group.get_unstopped_processes() for name, group in self.process_groups.items() if name != GOVERNOR
        )
        for name, group in self.process_groups.items():
            if name != GOVERNOR or stop_governor:
                group.stop_all()
        for process in self._processes(WorkerProcess):
            process.hurry()

    def ordered_stop_groups_phase_2(self) -> None:
        """Do nothing: phase 1 stops all groups, and is repeated."""

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:
        """Reap every child that has ended: our programs, and the orphans of other processes."""
        orphans = 0
        while (pid_and_status := self.options.waitpid())[0]:
            pid, status = pid_and_status
            process = self.options.pidhistory.pop(pid, None)
            if process is not None:
                process.finish(pid, status)
            else:
                orphans += 1
            if once:
                break
        if orphans:
            self.options.logger.debug(f"reaped {orphans} orphans of other processes")

    def handle_signal(self) -> None:
        """Handle all pending signals: upstream handles one a turn, and the next turn may be a second away."""
        while (signum := self.options.get_signal()) is not None:
            if signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                self._stop(signame(signum))
            elif signum == signal.SIGHUP:
                self._reload_settings()
            elif signum == signal.SIGUSR1:
                self._log_state()
            elif signum == signal.SIGUSR2:
                self.options.logger.warn(f"{signame(signum)} is not used here and does nothing")

    def _stop(self, name: str) -> None:
        """Stop everything; the second request kills what still runs."""
        if self._stop_requested is None:
            self._stop_requested = time.monotonic()
            self.options.logger.info(f"{name}: stopping all pools")
            self.options.mood = SupervisorStates.SHUTDOWN
        elif time.monotonic() - self._stop_requested > SAME_REQUEST_SECONDS:
            self.options.logger.warn(f"{name} again: killing what still runs")
            for process in self._processes(SupervisedProcess):
                if process.state == ProcessStates.STOPPING:
                    process.kill(signal.SIGKILL)

    def _log_state(self) -> None:
        """Log the states of the programs, and have the governor log the rest."""
        logger, outlet = self.options.logger, self.options.outlet
        for process in self._processes(SupervisedProcess):
            state = getProcessStateDescription(process.state).lower()
            pid_and_age = (
                f"pid {process.pid} for {process.running_seconds:.0f} s" if process.pid else "no process"
            )
            logger.info(f"USR1: {process.config.name}: {state}, {pid_and_age}{process.describe()}")
        logger.info(
            f"USR1: {outlet.buffered_bytes} bytes of log wait to be read, "
            f"{outlet.dropped_total} lines were dropped so far"
        )
        for governor in self._processes(GovernorProcess):
            # Before its first heartbeat it has no handler yet, and the signal would end it.
            if governor.pid and governor.has_beaten:
                governor.signal(signal.SIGUSR1)

    def _reload_settings(self) -> None:
        """Apply the settings that can be changed live, and log those that need a restart."""
        try:
            fresh = self._reload()
        except BadConfiguration as error:
            self.options.logger.error(f"HUP: nothing is changed: {error}")
            return
        try:
            # The stored settings include changes by `recyclery set`, which the file overrides.
            settings, changes, waiting = follow_file(read_settings(self._runtime_dir), fresh)
            write_settings(settings)
        except (OSError, ValueError) as error:
            self.options.logger.error(f"HUP: nothing is changed: {self._runtime_dir}: {error}")
            return
        self.options.settings = settings
        self.options.logger.info(f"HUP: {'; '.join(changes) or 'nothing has changed'}")
        if waiting:
            self.options.logger.warn(f"HUP: at the next start: {'; '.join(waiting)}")
        for governor in self._processes(GovernorProcess):
            if governor.pid:
                governor.signal(signal.SIGHUP)

    def tick(self, now: float | None = None) -> None:
        """Run supervisord's tick, kill a governor that hangs, and stop once a pool keeps dying."""
        super().tick(now)
        if self.options.mood == SupervisorStates.RESTARTING:
            # `supervisorctl reload` would restart supervisord in this process, which is no use in a container.
            self.options.logger.warn("reload is not done here: restart the container, or one program")
            self.options.mood = SupervisorStates.RUNNING
        if self.gave_up or self.options.mood == SupervisorStates.SHUTDOWN:
            return
        for governor in self._processes(GovernorProcess):
            if governor.hangs():
                silent = governor.silent_seconds()
                self.options.logger.warn(f"governor: no heartbeat for {silent:.0f} s: killed and restarted")
                governor.restart()
        failed = [process for process in self._processes(WorkerProcess) if process.gave_up()]
        if failed:
            self._give_up(max(failed, key=lambda process: process.laststop))

    def _give_up(self, process: WorkerProcess) -> None:
        """Stop everything and log why: a container without its pool is no use."""
        self.gave_up = True
        logger, settings, name = self.options.logger, self.options.settings, process.pool.name
        often = f"{process.deaths()} deaths in {settings.death_window_seconds:g} s"
        logger.critical(f"{name} does not stay up ({often}): giving up; the last time it {process.end}")
        for line in process.tail:
            logger.critical(f"{name}: {line.decode('utf-8', 'backslashreplace')}")
        self.options.mood = SupervisorStates.SHUTDOWN


def run_engine(settings: Settings, configuration: str, reload: Callable[[], Settings]) -> int:
    """Run supervisord until it has stopped everything, and return the exit code.

    `reload` reads the configuration again on HUP; it raises BadConfiguration.
    """
    clock = RunningClock()
    set_clock(clock)

    def format_dropped(count: int) -> bytes:
        message = f"{count} log lines dropped: standard output was not read"
        return FORMATS[settings.log_format].own("warning", message)

    outlet = Outlet(format_dropped)
    options = SupervisordOptions(settings, outlet, clock)
    options.realize(["-c", configuration])
    options.first = True
    options.test = False
    engine = Engine(options, settings, reload)
    try:
        engine.main()
    except ExitNow:
        pass
    finally:
        options.close_httpservers()
        outlet.drain(1.0)
    return engine.exit_code
