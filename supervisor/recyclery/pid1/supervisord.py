"""supervisord's state machine, with the rules of a container.

Overridden, and why (line numbers are supervisor 4.3.0's, see docs/architecture.md):
- groups stop together, not one after the other (supervisord.py:156-172), and the governor last;
- a second TERM or INT kills at once (:305 treats all alike);
- orphans of other processes are reaped without a limit and without a log line each (:285-300);
- signals wake the loop, which upstream sleeps up to a second;
- children's output goes line by line through one `Outlet` (loggers.py:102 blocks in write());
- deadlines go by a clock that does not jump (`RunningClock`; time.time() upstream);
- a pool has one worker in service in one of two slots, and a successor in the other while it is replaced
  (`processes.py`; upstream a program that ends is always restarted);
- a governor that hangs is killed, a pool that keeps dying and was never ready stops everything, and one that
  was ready is started after longer and longer pauses (restarted for ever upstream);
- the exit code shows how it ended (always 0 upstream).
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Any, TypeVar

from supervisor.loggers import LevelsByName, Logger
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import EventListenerConfig, ServerOptions, signame
from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor

from recyclery.common import exit_codes
from recyclery.config.fields import BadConfiguration
from recyclery.config.settings import Pool, Settings, follow_file, read_settings, write_settings
from recyclery.pid1.output import FORMATS, LogFormat, Outlet
from recyclery.pid1.processes import (
    GovernorConfig,
    GovernorProcess,
    SupervisedProcess,
    WorkerConfig,
    WorkerProcess,
)
from recyclery.pid1.supervisord_conf import GOVERNOR
from supervisor import process, rpcinterface, supervisord  # type: ignore[attr-defined]  # supervisor has no types

# Some senders (coreutils' timeout) signal the process and then its whole group: that counts as one request.
SAME_REQUEST_SECONDS = 1.0
# The loop runs at least once a second; a longer step means that this process was suspended.
LONGEST_TICK_SECONDS = 2.0
LEVELS = {
    LevelsByName.CRIT: "critical",
    LevelsByName.ERRO: "error",
    LevelsByName.WARN: "warning",
    LevelsByName.INFO: "info",
}
ProcessKind = TypeVar("ProcessKind", bound=SupervisedProcess)


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


def fork_with_default_signals() -> int:
    """Fork; the child has default dispositions and an empty mask, whatever we were started with.

    All signals are blocked meanwhile: a child that still had our handlers would lose a TERM at its exec.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(signum, signal.SIG_DFL)
            before = set()
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        return next(pool for pool in self.settings.pools if slot in pool.slots)

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
        # Sent by a terminal that we write to from the background: they must not stop the supervisor.
        for signum in (signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(signum, signal.SIG_IGN)

    fork = staticmethod(fork_with_default_signals)


class OutletHandler:
    """The handler of supervisord's logger, which filters by level, over the outlet."""

    level = LevelsByName.BLAT

    def __init__(self, outlet: Outlet, log_format: LogFormat) -> None:
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


class SignalPipe:
    """Makes the loop's poll return when a signal arrives (signal.set_wakeup_fd)."""

    def __init__(self) -> None:
        self.fd, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def readable(self) -> bool:
        """Return True: the loop polls it."""
        return True

    def writable(self) -> bool:
        """Return False: nothing is written to it here."""
        return False

    def handle_read_event(self) -> None:
        """Empty the pipe: supervisord's own handler has queued the signals."""
        os.read(self.fd, 4096)

    def handle_error(self) -> None:
        """Ignore errors."""


class Engine(Supervisor):  # type: ignore[misc]
    """supervisord at PID 1."""

    def __init__(self, options: SupervisordOptions, reload: Callable[[], Settings]) -> None:
        super().__init__(options)
        self._reload = reload
        self.gave_up = False
        self._stop_requested: float | None = None

    def exit_code(self) -> int:
        """Return the exit code of `recyclery run`."""
        if self.gave_up:
            return exit_codes.GAVE_UP
        were_cut = any(worker.was_cut_short for worker in self._processes(WorkerProcess))
        return exit_codes.KILLED if were_cut else exit_codes.DRAINED

    def left_generations(self) -> list[str]:
        """Return the leases of the workers that were killed, and may have left messages."""
        left = (worker.left_generation for worker in self._processes(WorkerProcess))
        return [generation for generation in left if generation]

    def _processes(self, kind: type[ProcessKind]) -> list[ProcessKind]:
        groups = self.process_groups.values()
        return [each for group in groups for each in group.processes.values() if isinstance(each, kind)]

    def runforever(self) -> None:
        """Run until everything has stopped."""
        pipe = SignalPipe()
        sockets = self.options.get_socket_map()
        sockets[pipe.fd] = pipe
        sockets[self.options.outlet.fd] = self.options.outlet
        super().runforever()

    def ordered_stop_groups_phase_1(self) -> None:
        """Stop all pools together, and the governor after them: it reaps browsers meanwhile."""
        pools = [group for name, group in self.process_groups.items() if name != GOVERNOR]
        pools_have_stopped = not any(group.get_unstopped_processes() for group in pools)
        for group in self.process_groups.values() if pools_have_stopped else pools:
            group.stop_all()
        for worker in self._processes(WorkerProcess):
            worker.hurry()

    def ordered_stop_groups_phase_2(self) -> None:
        """Do nothing: phase 1 stops all groups, and is repeated."""

    def reap(self, once: bool = False, recursionguard: int = 0) -> None:
        """Reap every child that has ended: our programs, and the orphans of other processes."""
        orphans = 0
        while (pid_and_status := self.options.waitpid())[0]:
            if (ended := self.options.pidhistory.pop(pid_and_status[0], None)) is not None:
                ended.finish(*pid_and_status)
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
            for program in self._processes(SupervisedProcess):
                if program.state == ProcessStates.STOPPING:
                    program.kill(signal.SIGKILL)

    def _log_state(self) -> None:
        """Log the states of the programs, and have the governor log the rest."""
        logger, outlet = self.options.logger, self.options.outlet
        for program in self._processes(SupervisedProcess):
            state = getProcessStateDescription(program.state).lower()
            age_seconds = program.now() - program.laststart
            pid_and_age = f"pid {program.pid} for {age_seconds:.0f} s" if program.pid else "no process"
            logger.info(f"USR1: {program.config.name}: {state}, {pid_and_age}{program.describe()}")
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
        directory = self.options.settings.runtime_dir
        try:
            fresh = self._reload()
            # The stored settings include changes by `recyclery set`, which the file overrides.
            settings, changes, waiting = follow_file(read_settings(directory), fresh)
            write_settings(settings)
        except BadConfiguration as error:
            self.options.logger.error(f"HUP: nothing is changed: {error}")
            return
        except (OSError, ValueError) as error:
            self.options.logger.error(f"HUP: nothing is changed: {directory}: {error}")
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
            governor.end_if_silent()
        if failed := [worker for worker in self._processes(WorkerProcess) if worker.gave_up()]:
            self._give_up(max(failed, key=lambda worker: worker.laststop))

    def _give_up(self, worker: WorkerProcess) -> None:
        """Stop everything and log why: a container without its pool is no use."""
        self.gave_up = True
        logger, settings, name = self.options.logger, self.options.settings, worker.pool.name
        often = f"{worker.deaths()} deaths in {settings.death_window_seconds:g} s"
        logger.critical(f"{name} does not stay up ({often}): giving up; the last time it {worker.end}")
        for line in worker.tail:
            logger.critical(f"{name}: {line.decode('utf-8', 'backslashreplace')}")
        self.options.mood = SupervisorStates.SHUTDOWN


def run_engine(settings: Settings, configuration: str, reload: Callable[[], Settings]) -> tuple[int, list[str]]:
    """Run supervisord until it has stopped everything; return the exit code, and what killed workers left.

    `reload` reads the configuration again on HUP; it raises BadConfiguration.
    """
    clock = RunningClock()
    # supervisord reads it in place of time.time(), whose steps would end a grace period early.
    for module in (process, rpcinterface, supervisord):
        module.time = clock

    own = FORMATS[settings.log_format].own
    outlet = Outlet(lambda count: own("warning", f"{count} log lines dropped: standard output was not read"))
    options = SupervisordOptions(settings, outlet, clock)
    options.realize(["-c", configuration])
    options.first = True
    options.test = False
    engine = Engine(options, reload)
    try:
        with contextlib.suppress(ExitNow):
            engine.main()
    finally:
        options.close_httpservers()
        outlet.drain(1.0)
    return engine.exit_code(), engine.left_generations()
