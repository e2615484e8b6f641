"""The values that observing yields. Times are seconds of CLOCK_BOOTTIME, sizes are bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from recyclery.common.pool_state import PoolState

TICK_SECONDS = 1 / os.sysconf("SC_CLK_TCK")
BROWSER_NAMES = ("chrom", "headless_shell", "google-chrome")


class Owner(NamedTuple):
    """A pool child, living or dead, by what never names another process: pid and start together."""

    pool: str
    pid: int
    start_ticks: int


class ProcessKey(NamedTuple):
    """A process by what never names another one."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Container:
    """Memory of the container (or the stated budget), and where it was read."""

    limit_bytes: int
    usage_bytes: int
    working_set_bytes: int
    floor_bytes: int
    oom_kills: int
    source: str
    pressure_percent: float | None = None
    """Share of the last 10 s in which something waited for memory (PSI, some); None where it is not told."""


@dataclass(frozen=True, slots=True)
class Process:
    """One line of the process table. `anon_bytes` is RssAnon + RssShmem, 0 where nobody asked for it."""

    pid: int
    start_ticks: int
    parent: int
    session: int
    state: str
    name: str
    anon_bytes: int = 0
    cpu_ticks: int = 0
    """CPU time it has used, in user and kernel mode together."""
    shmem_bytes: int = 0
    """RssShmem, the part of `anon_bytes` that other processes may see."""

    @property
    def key(self) -> ProcessKey:
        """What names this process and never another."""
        return ProcessKey(self.pid, self.start_ticks)

    @property
    def started(self) -> float:
        """When it started; up to one clock tick early."""
        return self.start_ticks * TICK_SECONDS

    @property
    def is_defunct(self) -> bool:
        """Ended, and not collected by its parent."""
        return self.state == "Z"

    @property
    def is_browser(self) -> bool:
        """Chrome, Chromium, chromedriver or one of their helpers, by the kernel's name for it."""
        return self.name.startswith(BROWSER_NAMES)

    @property
    def is_crashpad(self) -> bool:
        """Chrome's crash reporter, which leads a session of its own; the kernel cuts names at 15 bytes."""
        return self.name.startswith("chrome_crashpad")

    @property
    def is_driver(self) -> bool:
        """chromedriver, which starts a browser for a task and ends it."""
        return self.name.startswith("chromedriver")


@dataclass(frozen=True, slots=True)
class Child:
    """A living pool child with everything it started."""

    owner: Owner
    processes: tuple[Process, ...]
    tasks_done: int = 0
    task_id: str | None = None
    task_name: str | None = None
    task_started: float | None = None
    """When its task began, or was first heard of; None for one that began before this governor."""
    first_task_started: float | None = None
    last_task_ended: float | None = None
    slot: str = ""
    """Of the worker that it belongs to; empty where that is not known, or dead."""
    idle_bytes: int = 0
    """What the child itself held as its last task ended, by its own word; 0 where not known."""
    kept: tuple[int, ...] = ()
    """Pids of the chromedrivers whose browsers it keeps for its next tasks, by its own word."""
    remote: tuple[str, ...] = ()
    """Ids of the sessions that it has open on a Selenium Grid."""
    tracing: str = ""
    """`on` while it traces allocations, then `over`: what it holds is not the tasks' doing alone."""

    @property
    def tree_bytes(self) -> int:
        """Anonymous and shared memory of the child and all it started."""
        return sum(process.anon_bytes for process in self.processes)


@dataclass(frozen=True, slots=True)
class Orphans:
    """What a dead pool child has left behind."""

    owner: Owner
    processes: tuple[Process, ...]


@dataclass(frozen=True, slots=True)
class LeftoverFiles:
    """A throw-away folder on disk that living processes named once, and none does since `since`."""

    folder: Path
    since: float
    drivers: frozenset[ProcessKey] = frozenset()
    """The chromedrivers whose browsers had it for a profile: at a clean quit they remove it themselves."""
    guessed: bool = False
    """Whether nothing named it but the time at which it was made, empty: removed only if it still is."""


@dataclass(frozen=True, slots=True)
class OpenSessions:
    """Sessions that a dead pool child has left open on the Selenium Grid, by its last word."""

    owner: Owner
    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a worker's main process last said of itself, and when."""

    pid: int
    answered: float
    """When its event loop last answered."""
    last_heartbeat: float | None = None
    """When a thread of it last gave a sign of life; None where it gives none."""
    broker_answers: bool | None = None
    """Whether its broker does, as that thread sees it; None where it is not asked."""
    stopping: bool = False
    """Whether it was told to end, by whomever."""
    consumes: frozenset[str] = frozenset()
    """The queues it takes tasks from."""
    received: int = 0
    """Messages that it has taken since its start."""
    has_room: bool = False
    """Whether it could take one more."""
    waiting: int | None = None
    """Messages in the queues it takes tasks from; None where that is not known."""
    overdue: Mapping[int, float] = field(default_factory=dict)
    """For how many seconds tasks have been past their hard time limits, by their children's pids."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool's worker in one of its slots, as PID 1 and the worker itself describe it."""

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
    node: str | None = None
    consuming: bool = False
    """Whether it takes tasks from all its queues, by its own word."""
    retires: bool = True
    """Whether it lets single children go; else the whole worker is replaced."""
    leaving: frozenset[int] = frozenset()
    """Children that were told to leave, by pid; they get no task."""
    concurrency: int | None = None
    max_tasks_per_child: int | None = None
    holding: bool | None = None
    """Whether it takes no tasks because it was told so; None where it cannot be told."""
    queue_depth: int | None = None
    main_bytes: int = 0
    main_start_bytes: int = 0
    """What its main process holds, and held when it had started."""
    main: Process | None = None
    """Its main process as the kernel has it."""
    vitals: Vitals | None = None
    """None for a main process that has said nothing yet."""

    @property
    def is_in_service(self) -> bool:
        """Whether it runs, or starts, and was not told to leave."""
        return self.pid is not None and not self.state.is_leaving

    @property
    def reported_state(self) -> PoolState:
        """Its state for those who ask whether all is well: a worker that has yet to answer is starting."""
        return PoolState.STARTING if self.state is PoolState.RUNNING and self.vitals is None else self.state


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One tick's view of everything."""

    at: float
    container: Container
    pools: tuple[PoolView, ...]
    """For each pool the worker that serves it."""
    children: tuple[Child, ...]
    orphans: tuple[Orphans, ...]
    defunct: int
    others: tuple[PoolView, ...] = ()
    """Workers beside those: a successor that starts, or a former worker that drains."""
    empty_slots: tuple[PoolView, ...] = ()
    """Slots in which nothing runs, beside those."""
    foreign_browsers: tuple[Process, ...] = ()
    """Browser processes that no pool started."""
    leftover_files: tuple[LeftoverFiles, ...] = ()
    orphaned_browsers: Mapping[ProcessKey, float] = field(default_factory=dict)
    """Browsers that a chromedriver started which is gone, and since when."""
    browsers_starting: bool = False
    """Whether a browser has just started whose folders are not all known yet."""
    open_sessions: tuple[OpenSessions, ...] = ()
    shm_files_bytes: int = 0
    """What lies in /dev/shm, whoever put it there."""
    cpu_share: float = 0.0
    """How much of the CPU that the container may have was used since the last look, 0 to 1."""
    late_seconds: float = 0.0
    """By how much this look came late: the machine is throttled, or thrashes."""

    @property
    def workers(self) -> tuple[PoolView, ...]:
        """The workers in all slots where there is one."""
        return (*self.pools, *self.others)
