"""One tick's observations, as frozen values. Times are seconds of CLOCK_BOOTTIME, sizes are bytes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery_worker.browser_names import CHROME, CRASH_REPORTER_NAMES, DRIVERS, is_browser_name

CLOCK_TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
SCARCE_PERCENT = 80
NEARLY_USED_PERCENT = 90
PLENTY_BYTES = 1 << 30
PLENTY_INODES = 100_000


class Owner(NamedTuple):
    """A pool child, living or dead. Pid and start time together are never reused."""

    pool: str
    pid: int
    start_ticks: int


class ProcessKey(NamedTuple):
    """A process. Pid and start time together are never reused."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class ContainerMemory:
    """Memory of the container (or of a configured budget), and where it was read."""

    limit_bytes: int
    usage_bytes: int
    working_set_bytes: int
    floor_bytes: int
    """Unreclaimable memory: what no page reclaim can free. All decisions are based on it."""
    oom_kills: int
    source: str
    pressure_percent: float | None = None
    """Share of the last 10 s in which some process waited for memory (PSI); None where unavailable."""


class Supply(NamedTuple):
    """Something that runs out: how much of it is used, of how much, and the child that has most."""

    name: str
    used: int
    limit: int
    in_bytes: bool = False
    is_vast: bool = False
    """Whether there are usually so many that a tenth of them is plenty."""
    holder: str = ""
    held: int = 0

    @property
    def percent(self) -> float:
        """The share that is used."""
        return 100 * self.used / self.limit if self.limit > 0 else 0.0

    @property
    def is_scarce(self) -> bool:
        """Whether little is left: SCARCE_PERCENT are used, and of a large disk there is no plenty free."""
        plenty = PLENTY_BYTES if self.in_bytes else PLENTY_INODES if self.is_vast else self.limit
        return self.percent >= SCARCE_PERCENT and self.limit - self.used < plenty


@dataclass(frozen=True, slots=True)
class Process:
    """One process. `anon_bytes` is RssAnon + RssShmem, 0 where it was not read."""

    pid: int
    start_ticks: int
    parent: int
    session: int
    state: str
    name: str
    anon_bytes: int = 0
    cpu_ticks: int = 0
    """CPU time used, user and system together."""
    shmem_bytes: int = 0
    """RssShmem, the part of `anon_bytes` that other processes may share."""
    image: int = 0
    """The same for processes that forked without an exec; 0 where unknown."""

    @property
    def key(self) -> ProcessKey:
        """Its unique key."""
        return ProcessKey(self.pid, self.start_ticks)

    @property
    def started(self) -> float:
        """When it started, rounded down to a clock tick."""
        return self.start_ticks * CLOCK_TICK_SECONDS

    @property
    def is_defunct(self) -> bool:
        """Whether it is a zombie: it has exited, and its parent has not waited for it."""
        return self.state == "Z"

    @property
    def is_browser(self) -> bool:
        """Whether it is a browser, a driver or one of their helpers, by its name."""
        return is_browser_name(self.name)

    @property
    def is_chrome(self) -> bool:
        """Whether it is Chrome, Chromium, chromedriver or one of their helpers, by its name."""
        return self.name.startswith(CHROME)

    @property
    def is_crashpad(self) -> bool:
        """Whether it is a browser's crash reporter, which has its own session."""
        return self.name in CRASH_REPORTER_NAMES

    @property
    def is_driver(self) -> bool:
        """Whether it is a driver such as chromedriver, which starts and ends a task's browser."""
        return self.name.startswith(DRIVERS)


class EndedTask(NamedTuple):
    """A task that a child has run, and when."""

    name: str
    started: float
    ended: float

    def may_have_started(self, process: Process) -> bool:
        """Return whether a process started while it ran, as far as a clock tick tells."""
        return self.started < process.started + CLOCK_TICK_SECONDS and process.started <= self.ended


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildState:
    """What a child reports of its tasks."""

    tasks_done: int = 0
    task_id: str | None = None
    task_name: str | None = None
    task_started: float | None = None
    """When its task was first reported; None for one that started before this governor."""
    first_task_started: float | None = None
    last_task_ended: float | None = None
    ended_tasks: tuple[EndedTask, ...] = ()
    """The latest tasks whose times are known, oldest first."""
    idle_bytes: int = 0
    """Its memory when its last task ended; 0 where unknown."""
    idle_shared_bytes: int = 0
    """How much shared memory it had mapped then."""
    kept: tuple[int, ...] = ()
    """Pids of the chromedrivers whose browsers it keeps for its next tasks."""
    remote: tuple[str, ...] = ()
    """Ids of its sessions on a Selenium Grid."""
    tracing: str = ""
    """`on` while it traces allocations, then `over`: its memory includes the trace."""
    heard: float = 0.0
    """When that was reported."""


@dataclass(frozen=True, slots=True)
class Child(ChildState):
    """A living pool child with its descendants, and what it reports."""

    owner: Owner
    processes: tuple[Process, ...]
    slot: str = ""
    """Its worker's; empty where that is unknown or dead."""
    file_bytes: int = 0
    """The memory of files without a name that only its processes hold open."""
    shared_bytes: int = 0
    """The part of its memory that its main process or other children hold too, and that counts with them."""
    task_bytes: int = 0
    """What its task has added, no page counted twice; 0 where it is within `max_task_bytes`, or has none."""

    def maker_of(self, process: Process) -> EndedTask | None:
        """Return the ended task that started a process; None where that is not known for certain."""
        makers = [task for task in self.ended_tasks if task.may_have_started(process)]
        return makers[0] if len(makers) == 1 else None

    @property
    def tree_bytes(self) -> int:
        """Anonymous and shared memory of the child and all it started, and files that only they hold."""
        return self.file_bytes + sum(process.anon_bytes for process in self.processes)

    @property
    def own_bytes(self) -> int:
        """Its part of the container's memory: what its end would free."""
        return self.tree_bytes - self.shared_bytes


@dataclass(frozen=True, slots=True)
class Orphans:
    """The processes of a dead pool child."""

    owner: Owner
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class LeftoverFiles:
    """A throw-away folder that no living process has named since `since`."""

    folder: Path
    since: float
    drivers: frozenset[ProcessKey] = frozenset()
    """The chromedrivers whose browsers had it as their profile: at a clean quit they remove it."""
    guessed: bool = False
    """Whether only its time of creation links it to a browser: it is removed only while it is empty."""


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """Sessions on a Selenium Grid that a dead pool child had open by its last report."""

    owner: Owner
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vitals:
    """A main process's latest stats and heartbeat, and their times."""

    pid: int
    answered: float
    """When its event loop last answered."""
    last_heartbeat: float | None = None
    """When its last heartbeat was sent; None where it sends none."""
    broker_answers: bool | None = None
    """Whether its broker answers the heartbeat thread; None where it is not asked."""
    stopping: bool = False
    """Whether it was told to stop."""
    consumes: frozenset[str] = frozenset()
    """The queues that it consumes."""
    received: int = 0
    """Messages received since its start."""
    has_room: bool = False
    """Whether it could receive one more."""
    waiting: int | None = None
    """Messages in the queues that it consumes; None where unknown."""
    overdue: Mapping[int, float] = field(default_factory=dict)
    """Seconds by which tasks are past their hard time limits, by their children's pids."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool's worker in one of its slots, as PID 1 and the worker report it."""

    name: str
    """The pool's."""
    state: PoolState
    pid: int | None
    slot: str = ""
    started: float = 0.0
    """When PID 1 last started it; far in the past where it never did."""
    forks: bool = True
    """Whether its tasks run in child processes."""
    outdated: bool = False
    """Whether its settings have changed since its start."""
    end: str = ""
    """How the last one in this slot ended, in words."""
    keeps_dying: bool = False
    """Whether PID 1 started it after a pause, as it died again and again, and it has not been up for long."""
    node: str | None = None
    consuming: bool = False
    """Whether it reports that it consumes all its queues."""
    retires: bool = True
    """Whether it can retire single children; else the whole worker is replaced."""
    leaving: frozenset[int] = frozenset()
    """Pids of children that were told to exit; they get no task."""
    concurrency: int | None = None
    max_tasks_per_child: int | None = None
    holding: bool | None = None
    """Whether its consuming is paused; None where it cannot be paused."""
    queue_depth: int | None = None
    main_bytes: int = 0
    main_start_bytes: int = 0
    """Its main process's memory now, and after its start."""
    main: Process | None = None
    """Its main process in the process table."""
    vitals: Vitals | None = None
    """None for a main process that has not answered yet."""

    @property
    def is_in_service(self) -> bool:
        """Whether it runs or starts, and was not told to exit."""
        return self.pid is not None and not self.state.is_leaving

    @property
    def reported_state(self) -> PoolState:
        """Its state for health checks: a worker that has not answered yet counts as starting.

        One that keeps dying is ill while it runs too.
        """
        if self.keeps_dying and self.state.is_healthy:
            return PoolState.BACKOFF
        return PoolState.STARTING if self.state is PoolState.RUNNING and self.vitals is None else self.state


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All of one tick's observations."""

    at: float
    container: ContainerMemory
    pools: tuple[PoolView, ...]
    """Each pool's active worker."""
    children: tuple[Child, ...]
    orphans: tuple[Orphans, ...]
    defunct: int
    others: tuple[PoolView, ...] = ()
    """Other workers: successors that start, and former workers that drain."""
    empty_slots: tuple[PoolView, ...] = ()
    """All other slots: nothing runs there."""
    foreign_browsers: tuple[Process, ...] = ()
    """Browser processes that no pool started."""
    leftover_files: tuple[LeftoverFiles, ...] = ()
    orphaned_browsers: Mapping[ProcessKey, float] = field(default_factory=dict)
    """Browsers whose chromedriver has exited, and since when."""
    browsers_starting: bool = False
    """Whether a browser has just started, so that not all of its folders are known."""
    open_sessions: tuple[OpenSessions, ...] = ()
    shm_files_bytes: int = 0
    """The size of all files in /dev/shm."""
    supplies: tuple[Supply, ...] = ()
    """What may run out beside memory."""
    cpu_share: float = 0.0
    """Share of the container's CPU used since the last snapshot, 0 to 1."""
    late_seconds: float = 0.0
    """The delay of this tick: the container is throttled, or thrashes."""

    @property
    def workers(self) -> tuple[PoolView, ...]:
        """All workers that run."""
        return (*self.pools, *self.others)

    @property
    def unattributed_bytes(self) -> int:
        """The unreclaimable memory that neither children nor main processes hold."""
        return max(0, self.container.floor_bytes - self._counted_bytes)

    def told_bytes(self, held: int) -> int:
        """Return a part of the memory as it is told: all together are no more than what the container holds.

        What browsers share with one another is counted more than once: where that shows, all parts are made
        smaller by the same factor.
        """
        counted, floor = self._counted_bytes, self.container.floor_bytes
        return held * floor // counted if counted > floor else held

    @property
    def _counted_bytes(self) -> int:
        # A main process that runs the tasks itself is among the children.
        children = {child.owner.pid: child.own_bytes for child in self.children}
        mains = {view.pid: view.main_bytes for view in self.workers if view.pid is not None}
        return sum((mains | children).values())
