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
import time
from collections.abc import Callable

from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.options import decode_wait_status, signame
from supervisor.states import ProcessStates, SupervisorStates
from supervisor.supervisord import Supervisor

from recyclery.config.change import follow_file
from recyclery.config.load import BadConfiguration
from recyclery.config.settings import Settings
from recyclery.config.stored import load_settings, write_settings
from recyclery.init import exit_codes
from recyclery.init.outlet import Outlet
from recyclery.init.processes import Options, PoolProcess
from recyclery.init.programs import GOVERNOR

# Some senders (coreutils' timeout) signal the process and then its whole group: that is one request.
SAME_REQUEST_SECONDS = 1.0


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

    def __init__(self, options: Options, settings: Settings, reload: Callable[[], Settings]) -> None:
        super().__init__(options)
        self._runtime_dir = settings.runtime_dir
        self._reload = reload
        self.gave_up = False
        self._asked_to_stop = 0.0

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
                _, message = decode_wait_status(status)
                self.options.logger.debug(f"reaped a stranger, pid {pid} ({message})")
            if once:
                return

    def handle_signal(self) -> None:
        """TERM, INT and QUIT stop, a second one kills; HUP reads the configuration anew."""
        sig = self.options.get_signal()
        if sig in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            if self.options.mood != SupervisorStates.SHUTDOWN:
                self._asked_to_stop = time.monotonic()
                self.options.logger.info(f"{signame(sig)}: stopping all pools")
                self.options.mood = SupervisorStates.SHUTDOWN
            elif time.monotonic() - self._asked_to_stop > SAME_REQUEST_SECONDS:
                self.options.logger.warn(f"{signame(sig)} again: killing what still runs")
                self._kill_pools()
        elif sig == signal.SIGHUP:
            self._follow_file()
        elif sig == signal.SIGUSR2:
            self.options.logger.warn(f"{signame(sig)} is not used here and does nothing")

    def _follow_file(self) -> None:
        """Take over what can be changed while all runs, and say what cannot."""
        try:
            fresh = self._reload()
        except BadConfiguration as error:
            self.options.logger.error(f"HUP: nothing is changed: {error}")
            return
        try:
            # What `recyclery set` changed since is in there too, and gives way to the file.
            settings, changes, waiting = follow_file(load_settings(self._runtime_dir), fresh)
            write_settings(settings)
        except (OSError, ValueError) as error:
            self.options.logger.error(f"HUP: nothing is changed: {self._runtime_dir}: {error}")
            return
        self.options.logger.info(f"HUP: {'; '.join(changes) or 'nothing has changed'}")
        if waiting:
            self.options.logger.warn(f"HUP: at the next start: {'; '.join(waiting)}")
        for process in self.process_groups[GOVERNOR].processes.values():
            if process.pid:
                process.signal(signal.SIGHUP)

    def _kill_pools(self) -> None:
        for process in self._pool_processes():
            if process.state == ProcessStates.STOPPING:
                process.kill(signal.SIGKILL)

    def tick(self, now: float | None = None) -> None:
        """Besides supervisord's ticks: end when a pool gave up, for a container without its pool is no use."""
        super().tick(now)
        if self.options.mood == SupervisorStates.RESTARTING:
            # `supervisorctl reload` means to begin anew in this process, which a container has no use for.
            self.options.logger.warn("reload is not done here: restart the container, or one program")
            self.options.mood = SupervisorStates.RUNNING
        if self.gave_up or self.options.mood == SupervisorStates.SHUTDOWN:
            return
        for process in self._pool_processes():
            if process.state == ProcessStates.FATAL:
                self.gave_up = True
                self.options.logger.critical(
                    f"{process.config.name} did not stay up: giving up; its output above says why"
                )
                self.options.mood = SupervisorStates.SHUTDOWN


def run_engine(settings: Settings, configuration: str, reload: Callable[[], Settings]) -> int:
    """Run supervisord until it has stopped everything, and return the exit code.

    `reload` reads the configuration anew, for HUP; it raises BadConfiguration.
    """
    outlet = Outlet()
    options = Options(settings, outlet)
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
