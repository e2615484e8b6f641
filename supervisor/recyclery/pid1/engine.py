"""supervisord's state machine with the container's rules laid over it.

Overridden, and why (line numbers are supervisor 4.3.0's, see docs/architecture.md):
- groups stop at once, not one after the other (supervisord.py:156-172), and the governor last;
- a second TERM or INT kills at once (:305 treats all alike);
- strangers are reaped without a bound and without a line each (:285-300);
- signals wake the loop, which else sleeps up to a second;
- children's output goes line by line through one `Outlet` (loggers.py:102 blocks in write());
- deadlines go by a clock that does not jump (`clock.py`; time.time() upstream);
- a pool has one worker in service in one of two slots, and a successor beside it while it is replaced
  (`pool_process.py`; a program that ends is started again whatever runs beside it upstream);
- a governor that hangs is killed, a pool that keeps dying ends all (restarted for ever upstream);
- the exit code says how it ended (always 0 upstream).
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Callable

from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import signame
from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.live import follow_file
from recyclery.config.settings import Settings
from recyclery.config.stored import read_settings, write_settings
from recyclery.pid1.clock import RunningClock, give_to_supervisord
from recyclery.pid1.governor_process import GovernorProcess, OurProcess
from recyclery.pid1.output import FORMATS, LogFormat, Outlet
from recyclery.pid1.signals import SignalPipe
from recyclery.pid1.supervisord_conf import GOVERNOR
from recyclery.pid1.supervisord_options import Options
from recyclery.pid1.worker_process import PoolProcess

# Some senders (coreutils' timeout) signal the process and then its whole group: that is one request.
SAME_REQUEST_SECONDS = 1.0


class Engine(Supervisor):  # type: ignore[misc]
    """The process engine at PID 1."""

    def __init__(self, options: Options, settings: Settings, reload: Callable[[], Settings]) -> None:
        super().__init__(options)
        self._runtime_dir = settings.runtime_dir
        self._reload = reload
        self.gave_up = False
        self._asked_to_stop: float | None = None

    @property
    def exit_code(self) -> int:
        """How it ended, for the shell."""
        if self.gave_up:
            return exit_codes.GAVE_UP
        killed = any(process.had_to_be_killed for process in self._pool_processes())
        return exit_codes.KILLED if killed else exit_codes.DRAINED

    def _processes(self) -> list[OurProcess]:
        return [process for group in self.process_groups.values() for process in group.processes.values()]

    def _pool_processes(self) -> list[PoolProcess]:
        return [process for process in self._processes() if isinstance(process, PoolProcess)]

    def _governors(self) -> list[GovernorProcess]:
        return [process for process in self._processes() if isinstance(process, GovernorProcess)]

    def runforever(self) -> None:
        """Run until all is stopped."""
        pipe = SignalPipe()
        sockets = self.options.get_socket_map()
        sockets[pipe.fd] = pipe
        sockets[self.options.outlet.fd] = self.options.outlet
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop all pools at once; the governor when they are gone, for it still reaps meanwhile."""
        stop_governor = not any(
            group.get_unstopped_processes() for name, group in self.process_groups.items() if name != GOVERNOR
        )
        for name, group in self.process_groups.items():
            if name != GOVERNOR or stop_governor:
                group.stop_all()
        for process in self._pool_processes():
            process.hurry()

    def ordered_stop_groups_phase_2(self) -> None:
        """Nothing: phase 1 asks them all, and goes on asking."""

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:
        """Collect every child that has ended, ours and strangers alike."""
        strangers = 0
        while True:
            pid, status = self.options.waitpid()
            if not pid:
                break
            process = self.options.pidhistory.pop(pid, None)
            if process is not None:
                process.finish(pid, status)
            else:
                strangers += 1
            if once:
                break
        if strangers:
            self.options.logger.debug(f"reaped {strangers} processes that others left")

    def handle_signal(self) -> None:
        """Take all signals that came: upstream takes one a turn, and the next turn may be a second away."""
        while (signum := self.options.get_signal()) is not None:
            self._take_signal(signum)

    def _take_signal(self, signum: int) -> None:
        """TERM, INT and QUIT stop, a second one kills; HUP reads the configuration anew; USR1 tells all."""
        if signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._take_stop(signame(signum))
        elif signum == signal.SIGHUP:
            self._follow_file()
        elif signum == signal.SIGUSR1:
            self._tell_state()
        elif signum == signal.SIGUSR2:
            self.options.logger.warn(f"{signame(signum)} is not used here and does nothing")

    def _take_stop(self, name: str) -> None:
        if self._asked_to_stop is None:
            self._asked_to_stop = time.monotonic()
            self.options.logger.info(f"{name}: stopping all pools")
            self.options.mood = SupervisorStates.SHUTDOWN
        elif time.monotonic() - self._asked_to_stop > SAME_REQUEST_SECONDS:
            self.options.logger.warn(f"{name} again: killing what still runs")
            for process in self._processes():
                if process.state == ProcessStates.STOPPING:
                    process.kill(signal.SIGKILL)

    def _tell_state(self) -> None:
        """Say how the programs are; the governor, where its loop runs, says the rest."""
        logger, outlet = self.options.logger, self.options.outlet
        for process in self._processes():
            state = getProcessStateDescription(process.state).lower()
            what = f"pid {process.pid} for {process.running_seconds:.0f} s" if process.pid else "no process"
            logger.info(f"USR1: {process.config.name}: {state}, {what}{process.describe()}")
        logger.info(
            f"USR1: {outlet.buffered_bytes} bytes of log wait to be read, "
            f"{outlet.dropped_in_all} lines were dropped so far"
        )
        for governor in self._governors():
            # Before its first beat it has no handler yet, and the signal would end it.
            if governor.pid and governor.has_beaten:
                governor.signal(signal.SIGUSR1)

    def _follow_file(self) -> None:
        """Take over what can be changed while all runs, and say what cannot."""
        try:
            fresh = self._reload()
        except BadConfiguration as error:
            self.options.logger.error(f"HUP: nothing is changed: {error}")
            return
        try:
            # What `recyclery set` changed since is in there too, and gives way to the file.
            settings, changes, waiting = follow_file(read_settings(self._runtime_dir), fresh)
            write_settings(settings)
        except (OSError, ValueError) as error:
            self.options.logger.error(f"HUP: nothing is changed: {self._runtime_dir}: {error}")
            return
        self.options.settings = settings
        self.options.logger.info(f"HUP: {'; '.join(changes) or 'nothing has changed'}")
        if waiting:
            self.options.logger.warn(f"HUP: at the next start: {'; '.join(waiting)}")
        for governor in self._governors():
            if governor.pid:
                governor.signal(signal.SIGHUP)

    def tick(self, now: float | None = None) -> None:
        """Besides supervisord's ticks: look after the governor, and end when a pool gave up."""
        super().tick(now)
        if self.options.mood == SupervisorStates.RESTARTING:
            # `supervisorctl reload` means to begin anew in this process, which a container has no use for.
            self.options.logger.warn("reload is not done here: restart the container, or one program")
            self.options.mood = SupervisorStates.RUNNING
        if self.gave_up or self.options.mood == SupervisorStates.SHUTDOWN:
            return
        for governor in self._governors():
            if governor.hangs():
                silent = governor.silent_seconds()
                self.options.logger.warn(
                    f"governor: no sign of life for {silent:.0f} s: killed, and started again"
                )
                governor.put_down()
        failed = [process for process in self._pool_processes() if process.gave_up()]
        if failed:
            self._give_up(max(failed, key=lambda process: process.laststop))

    def _give_up(self, process: PoolProcess) -> None:
        """Stop all, and say why: a container without its pool is no use."""
        self.gave_up = True
        logger, settings, name = self.options.logger, self.options.settings, process.pool.name
        often = f"{process.deaths()} deaths in {settings.death_window_seconds:g} s"
        logger.critical(f"{name} does not stay up ({often}): giving up; at last it {process.end}")
        for line in process.tail:
            logger.critical(f"{name}: {line.decode('utf-8', 'backslashreplace')}")
        self.options.mood = SupervisorStates.SHUTDOWN


def note_dropped(log_format: LogFormat, count: int) -> bytes:
    """Return the line that stands for lines that nobody read in time."""
    return log_format.own("warning", f"{count} log lines dropped: standard output was not read")


def run_engine(settings: Settings, configuration: str, reload: Callable[[], Settings]) -> int:
    """Run supervisord until it has stopped everything, and return the exit code.

    `reload` reads the configuration anew, for HUP; it raises BadConfiguration.
    """
    clock = RunningClock()
    give_to_supervisord(clock)
    outlet = Outlet(functools.partial(note_dropped, FORMATS[settings.log_format]))
    options = Options(settings, outlet, clock)
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
