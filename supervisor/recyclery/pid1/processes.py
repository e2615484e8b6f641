"""The governor and the workers as supervisord's programs and processes, and PID 1's methods for the governor.

A pool has one worker in service, in either slot. A worker that starts in the other slot is its successor, which
is not restarted where it does not stay up. A worker that drains then stays stopped, or is restarted.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from supervisor.dispatchers import PEventListenerDispatcher
from supervisor.options import EventListenerConfig, ProcessConfig, signame
from supervisor.process import Subprocess
from supervisor.states import ProcessStates, SupervisorStates, getProcessStateDescription
from supervisor.supervisord import Supervisor
from supervisor.xmlrpc import Faults, RPCError

from recyclery.config.settings import Pool, starts_alike
from recyclery.health.heartbeat import HEARTBEAT_BYTE
from recyclery.pid1.output import TAIL_LINES, LineLog
from recyclery.pid1.supervisord_conf import format_command, whole_seconds
from recyclery_worker.link import ready_file

# The first heartbeat may take longer by this factor: Python and its imports, on a machine short of CPU.
START_FACTOR = 4
BANNER = "🔨 Starting Celery Worker\nℹ  Processing queues: {queues}\nℹ  Worker name: {name}\n"
# A worker's warm shutdown, and the one where the user makes TERM a cold one (celery/apps/worker.py).
TERM_IS_WARM = os.environ.get("REMAP_SIGTERM") != "SIGQUIT"
DRAIN_SIGNAL = signal.SIGTERM if TERM_IS_WARM else signal.SIGINT
ENDING_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL})
STARTED = frozenset({ProcessStates.STARTING, ProcessStates.RUNNING})
IN_SERVICE = STARTED | {ProcessStates.BACKOFF}
# The first pause before a worker that keeps dying is started again, which each further death doubles, and the
# longest. One that stays up for as long as the longest is well again.
FIRST_PAUSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 60.0
ENDLESS = 1_000_000_000
# supervisord restarts these.
ENDED_UNASKED = frozenset({ProcessStates.EXITED, ProcessStates.BACKOFF})


class SupervisedProcess(Subprocess):  # type: ignore[misc]  # supervisor has no types
    """A program of ours: its output is logged to the last line, and the newest lines are kept."""

    longest_pause_seconds: float
    """Pause between two starts where it does not stay up; upstream it grows by a second each time."""
    delay: float

    def __init__(self, config: Any, group: Any, log_name: str) -> None:
        super().__init__(config)
        self.group = group
        self.options: Any = config.options
        self.tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self.log = LineLog(self.options.outlet, self.options.log_format, log_name, self.tail)
        self.end = ""
        """How it last ended, such as `ended with status 1`."""

    def now(self) -> float:
        """Return the time by the clock of all deadlines."""
        return float(self.options.clock.time())

    def describe(self) -> str:
        """Return further details for the log, after a comma."""
        return f", last time it {self.end}" if self.end else ""

    def change_state(self, new_state: int, expected: bool = True) -> Any:
        """Limit the pause between starts."""
        changed = super().change_state(new_state, expected)
        if new_state == ProcessStates.BACKOFF:
            self.delay = min(self.delay, self.now() + self.longest_pause_seconds)
        return changed

    def finish(self, pid: int, sts: int) -> None:
        """Log its last line too, when it has no newline."""
        self.end = format_exit(sts)
        super().finish(pid, sts)
        self.log.close()


class GovernorProcess(SupervisedProcess):
    """The governor, which sends a heartbeat at each turn of its loop; silent for too long, it hangs."""

    longest_pause_seconds = 30.0
    has_beaten = False
    _last_beat = 0.0

    def spawn(self) -> int | None:
        """Start it; the time until its first heartbeat counts from now on."""
        self.has_beaten = False
        self._last_beat = self.now()
        pid: int | None = super().spawn()
        return pid

    def record_beat(self) -> None:
        """Record a heartbeat."""
        self.has_beaten = True
        self._last_beat = self.now()

    def end_if_silent(self) -> None:
        """Kill it where it runs and hangs; supervisord starts it again, as after any other death."""
        # Time in which we were not running ourselves does not count.
        silent_seconds = self.now() - self._last_beat
        patience_seconds = self.options.settings.watchdog_seconds * (1 if self.has_beaten else START_FACTOR)
        if self.state in STARTED and silent_seconds > patience_seconds:
            self.options.logger.warn(f"governor: no heartbeat for {silent_seconds:.0f} s: killed and restarted")
            self._last_beat = self.now()
            self.signal(signal.SIGKILL)


class BeatDispatcher(PEventListenerDispatcher):  # type: ignore[misc]
    """The governor's standard output: supervisord's event protocol, and heartbeats between its words."""

    def handle_read_event(self) -> None:
        """Take the heartbeats out, and pass the rest to the protocol."""
        data = self.process.options.readfd(self.fd)
        if not data:
            self.close()
        if HEARTBEAT_BYTE in data:
            self.process.record_beat()
        self.state_buffer += data.replace(HEARTBEAT_BYTE, b"")
        self.handle_listener_state_change()


class GovernorConfig(EventListenerConfig):  # type: ignore[misc]
    """The governor as supervisord's event listener."""

    def make_process(self, group: Any = None) -> GovernorProcess:
        """Return the process that runs it."""
        return GovernorProcess(self, group, self.name)

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the governor's log (its standard error) through the outlet, and read its heartbeats."""
        dispatchers, pipes = super().make_dispatchers(proc)
        dispatchers[pipes["stdout"]] = BeatDispatcher(proc, "stdout", pipes["stdout"])
        send_through_outlet(proc, dispatchers)
        return dispatchers, pipes


class WorkerProcess(SupervisedProcess):
    """A worker's main process: prints a banner at each start, and counts its deaths."""

    longest_pause_seconds = 3.0
    was_cut_short = False
    """Whether it was killed when everything stopped, or cut tasks off."""
    left_generation = ""
    """The id of its lease, where it was killed when everything stopped."""
    draining = False
    """Whether it ends after its tasks, to be replaced."""

    def __init__(self, config: Any, group: Any) -> None:
        self.pool: Pool = config.options.pool_of(config.name)
        """The settings of its last start."""
        super().__init__(config, group, self.pool.name)
        self._deaths: list[float] = []
        self._pause_seconds = 0.0
        """Pause before its last start, or its next; 0 where it does not keep dying."""
        self._was_ready = False
        """Whether a worker in this slot has ever taken tasks."""
        self._was_asked_to_end = self._restarts_after_drain = self._is_restart = False
        self._proven: Pool | None = None
        """The settings it last stayed up with."""

    def spawn(self) -> int | None:
        """Print the pool's banner, then start it: with the current settings, after a death the former."""
        self._was_asked_to_end = self.draining = self._restarts_after_drain = False
        options = self.options
        with contextlib.suppress(OSError):
            self._ready_file.unlink()
        self.pool = self._former_settings() if self._is_restart else options.pool_of(self.config.name)
        self.config.command = format_command(options.settings, self.pool, self.config.name)
        self.config.stopwaitsecs = whole_seconds(options.settings.grace_seconds)
        self.config.stopsignal = signal.SIGTERM
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
        self.options.logger.warn(
            f"{self.config.name} did not stay up, and the worker that it was to follow has died: "
            "it starts with the settings of that one"
        )
        return former

    def drain_tasks(self, *, restart: bool) -> None:
        """Have it end after its tasks, and restart it then or not; it is killed after `drain_seconds`."""
        # supervisord takes a deadline further away than stopwaitsecs for a clock that was set back.
        self.config.stopwaitsecs = whole_seconds(self.options.settings.drain_seconds)
        self.config.stopsignal = DRAIN_SIGNAL
        self.stop()
        self.draining = True
        self._restarts_after_drain = restart

    def hurry(self) -> None:
        """Shorten a drain to the grace period: everything stops."""
        if self.draining:
            self.draining = self._restarts_after_drain = False
            self.config.stopwaitsecs = whole_seconds(self.options.settings.grace_seconds)
            self.delay = min(self.delay, self.now() + self.config.stopwaitsecs)
            if not TERM_IS_WARM:
                self.signal(signal.SIGTERM)

    def transition(self) -> None:
        """Restart it where it ended unasked, or after a drain that ends with a restart."""
        stays_up = self.options.mood > SupervisorStates.RESTARTING
        if stays_up and self._restarts_after_drain and self.state == ProcessStates.STOPPED:
            self.spawn()
            return
        self._is_restart = self.state in ENDED_UNASKED
        if self.was_ready:
            self.config.startretries = ENDLESS
        super().transition()
        self._is_restart = False

    def finish(self, pid: int, sts: int) -> None:
        """Count a death; a successor that did not stay up leaves the pool to its worker."""
        died = is_death(sts, asked=self.killing or self._was_asked_to_end)
        other = self._other
        ready_pid, _, generation = self._read_ready_file().partition(" ")
        is_ready = ready_pid == str(pid)
        self._was_ready |= is_ready
        if is_ready and self.options.mood == SupervisorStates.SHUTDOWN:
            self.was_cut_short |= sts != 0
            self.left_generation = generation if os.WIFSIGNALED(sts) else ""
        if died and not (other.state in IN_SERVICE and self.laststart > other.laststart):
            self._deaths.append(self.now())
        super().finish(pid, sts)
        if self.laststop - self.laststart >= self.config.startsecs:
            self._proven = self.pool
        self.draining = False
        if self.state in ENDED_UNASKED and other.state in IN_SERVICE:
            # In another state this one would be restarted as soon as the pool's worker ended.
            self.change_state(ProcessStates.STOPPED)
            self.backoff = 0
        elif died and self.was_ready:
            self._pause()

    def _pause(self) -> None:
        """Wait before the next start where it keeps dying, longer each time; the other pools go on."""
        settings, often = self.options.settings, self.deaths()
        up_seconds = self.laststop - self.laststart
        self._pause_seconds = next_pause(
            self._pause_seconds, up_seconds, keeps_dying=often >= settings.max_deaths
        )
        if not self._pause_seconds:
            return
        # In this state supervisord starts it after the delay. Where `backoff` is smaller, it takes that for a
        # clock that was set back.
        self.change_state(ProcessStates.BACKOFF)
        self.backoff = whole_seconds(self._pause_seconds)
        self.delay = self.now() + self._pause_seconds
        self.options.logger.error(
            f"{self.config.name} keeps dying ({often} deaths in {settings.death_window_seconds:g} s): it is "
            f"started again in {self._pause_seconds:g} s; the last time it {self.end}"
        )

    @property
    def keeps_dying(self) -> bool:
        """Whether it was started after a pause, and has not been up for long enough since."""
        return bool(self._pause_seconds) and self.now() - self.laststart < LONGEST_PAUSE_SECONDS

    @property
    def was_ready(self) -> bool:
        """Whether a worker of the pool has ever taken tasks."""
        return self._was_ready or bool(self._other._was_ready)

    @property
    def _ready_file(self) -> Path:
        return ready_file(self.options.settings.runtime_dir, self.config.name)

    def _read_ready_file(self) -> str:
        try:
            return self._ready_file.read_text(encoding="ascii", errors="replace")
        except OSError:
            return ""

    def signal(self, sig: int) -> str | None:
        """Send a signal for an operator or the governor; the end that it causes is no death."""
        self._was_asked_to_end |= sig in ENDING_SIGNALS
        problem: str | None = super().signal(sig)
        return problem

    def describe(self) -> str:
        """Return also how often it died."""
        window_seconds = self.options.settings.death_window_seconds
        return f", {self.deaths()} deaths in {window_seconds:g} s{super().describe()}"

    def deaths(self) -> int:
        """Return how often the pool's worker died within the window, in either slot."""
        now, window_seconds = self.now(), self.options.settings.death_window_seconds
        self._deaths = recent(self._deaths, now, window_seconds)
        return len(self._deaths) + len(recent(self._other._deaths, now, window_seconds))

    def gave_up(self) -> bool:
        """Return whether the pool's worker died too often, or does not stay up at all, and was never ready."""
        if self.was_ready:
            return False
        return self.state == ProcessStates.FATAL or bool(self.deaths() >= self.options.settings.max_deaths)

    def kill(self, sig: int) -> str | None:
        """Send a signal; a KILL of a stopping worker means that its time was not enough."""
        if sig == signal.SIGKILL and self.state == ProcessStates.STOPPING:
            self.was_cut_short |= self.options.mood == SupervisorStates.SHUTDOWN
            if self.draining:
                self.options.logger.warn(
                    f"{self.config.name}: still not done {self.options.settings.drain_seconds:g} s after it "
                    "was told to leave (drain_seconds): killed, and its tasks go back to their queues"
                )
        problem: str | None = super().kill(sig)
        return problem

    def is_outdated(self) -> bool:
        """Return whether it runs with settings that have changed since."""
        return not starts_alike(self.pool, self.options.pool_of(self.config.name))

    @property
    def _other(self) -> WorkerProcess:
        """The process in the pool's other slot."""
        other: WorkerProcess = self.options.workers[self.pool.other_slot(self.config.name)]
        return other


class WorkerConfig(ProcessConfig):  # type: ignore[misc]
    """A slot of a pool as supervisord's program."""

    def make_process(self, group: Any = None) -> WorkerProcess:
        """Return the process that runs it."""
        process = self.options.workers[self.name] = WorkerProcess(self, group)
        return process

    def make_dispatchers(self, proc: Any) -> Any:
        """Send the worker's output through the outlet, under its pool's name."""
        dispatchers, pipes = super().make_dispatchers(proc)
        send_through_outlet(proc, dispatchers)
        return dispatchers, pipes


def is_death(status: int, *, asked: bool) -> bool:
    """Return whether an end is a death: nobody asked for it, and its status is not 0, as after a drain."""
    return not asked and status != 0


def next_pause(last_seconds: float, up_seconds: float, *, keeps_dying: bool) -> float:
    """Return the pause before the next start of a worker that died; 0 for none beyond the usual one."""
    if last_seconds and up_seconds < LONGEST_PAUSE_SECONDS:
        return min(2 * last_seconds, LONGEST_PAUSE_SECONDS)
    return FIRST_PAUSE_SECONDS if keeps_dying else 0.0


def recent(deaths: Iterable[float], now: float, window_seconds: float) -> list[float]:
    """Return the deaths that are not older than the window."""
    return [at for at in deaths if now - at <= window_seconds]


def send_through_outlet(process: SupervisedProcess, dispatchers: dict[int, Any]) -> None:
    """Replace the log files of output dispatchers by the process's LineLog."""
    for dispatcher in dispatchers.values():
        if hasattr(dispatcher, "normallog"):
            dispatcher.normallog = dispatcher.childlog = process.log
            # At level debug supervisord would print each piece of output a second time.
            dispatcher.log_to_mainlog = False


def format_exit(status: int) -> str:
    """Return how a process ended, from its wait status."""
    if not os.WIFSIGNALED(status):
        return f"ended with status {os.waitstatus_to_exitcode(status)}"
    name = signame(os.WTERMSIG(status))
    # An unexpected SIGKILL is most likely the kernel's OOM killer (gunicorn assumes so too).
    return f"was killed by {name}{', perhaps out of memory' if name == 'SIGKILL' else ''}"


class WorkersInterface:
    """XML-RPC methods in addition to supervisord's, `recyclery.*` on the same socket: the workers in all slots.

    No method blocks.
    """

    def __init__(self, supervisord: Supervisor) -> None:
        self._options: Any = supervisord.options

    def list_workers(self) -> list[dict[str, object]]:
        """Return the worker in each slot with the time since its last start; pid is 0 where none runs."""
        self._refuse_at_shutdown()
        return [
            {
                "slot": slot,
                "pool": worker.pool.name,
                "state": "draining" if worker.draining else getProcessStateDescription(worker.state).lower(),
                "pid": worker.pid,
                "age_seconds": worker.now() - worker.laststart,
                "outdated": worker.is_outdated(),
                "forks": worker.pool.forks,
                "end": worker.end,
                "keeps_dying": worker.keeps_dying,
            }
            for slot, worker in self._options.workers.items()
        ]

    def leave(self, slot: str) -> bool:
        """Have the worker end after its tasks, and stay stopped."""
        return self._drain(slot, restart=False)

    def renew(self, slot: str) -> bool:
        """Have the worker end after its tasks, and restart it."""
        return self._drain(slot, restart=True)

    def _drain(self, slot: str, *, restart: bool) -> bool:
        self._refuse_at_shutdown()
        worker: WorkerProcess | None = self._options.workers.get(slot)
        if worker is None:
            raise RPCError(Faults.BAD_NAME, slot)
        if worker.state not in STARTED:
            raise RPCError(Faults.NOT_RUNNING, slot)
        worker.drain_tasks(restart=restart)
        return True

    def _refuse_at_shutdown(self) -> None:
        if self._options.mood < SupervisorStates.RUNNING:
            raise RPCError(Faults.SHUTDOWN_STATE)
