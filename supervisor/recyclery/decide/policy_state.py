"""What a decision knows besides the snapshot: models, what was done when, and what has been counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

from recyclery.decide.memory_model import PoolModel, headroom_bytes
from recyclery.observe.ownership import running_browsers
from recyclery.observe.snapshot import Child, Owner, Process, ProcessKey
from recyclery_worker.link import DeathReport

# A restart that did not help is repeated after this long, then after twice as long, up to the maximum.
RESTART_BACKOFF_SECONDS = 60.0
MAX_RESTART_BACKOFF_SECONDS = 3600.0
# A warning is logged again when its condition has lasted this long.
WARN_AGAIN_SECONDS = 600.0
KILLED_REMEMBERED = 500

Fault = Literal["hangs", "starves"]
Name = TypeVar("Name")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class StalledTask:
    """A running task, since when it has used no CPU time of its own, and the clock ticks used until then."""

    task_id: str
    task_seen: float
    """When the task was first observed."""
    since: float
    python_ticks: int
    browser_ticks: Mapping[ProcessKey, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InterruptedTask:
    """A task that was told to end for its memory, why, and when."""

    task_id: str
    reason: str
    at: float
    arrived: bool = True
    """Whether its worker said that it was told."""

    def still_runs(self, child: Child) -> bool:
        """Return whether a child is at that run of the task: a retry has the same id."""
        is_later_run = child.task_started is not None and child.task_started > self.at
        return child.task_id == self.task_id and not is_later_run


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """A worker's fault: its main process, the messages received by then, how long the fault was observed."""

    fault: Fault
    pid: int
    received: int
    seconds: float
    at: float
    """When it was last observed."""


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """When an unhealthy worker was last restarted, and how many times in a row."""

    at: float
    times: int

    @property
    def pause_seconds(self) -> float:
        """The time to wait before the next restart."""
        return min(MAX_RESTART_BACKOFF_SECONDS, RESTART_BACKOFF_SECONDS * 2.0 ** (self.times - 1))


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """One start of a worker, which owns message leases: its main process and its last known children."""

    generation: str
    pool: str
    pid: int
    children: frozenset[int] = frozenset()
    given_back: bool = False


@dataclass(frozen=True, slots=True)
class Successor:
    """A worker that was started to take over from another, when, and whether it has been observed."""

    slot: str
    at: float
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """Totals since the governor's start. No decision depends on them."""

    reaped: int = 0
    """Browsers that were killed."""
    grid_ended: int = 0
    """Sessions that were ended on a Selenium Grid."""
    recycles: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By pool and reason."""
    parked: int = 0
    """Tasks in the parked list, as the workers report it."""
    reclaimed_by: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """How many messages each worker has returned for dead ones, as it reports."""
    _killed: tuple[ProcessKey, ...] = ()

    @property
    def reclaimed(self) -> int:
        """Messages returned to their queues for dead workers."""
        return sum(self.reclaimed_by.values())

    def with_recycle(self, pool: str, reason: str) -> Counters:
        """Count one recycled child or worker of a pool."""
        counted = self.recycles.get(pool, {})
        return replace(self, recycles={**self.recycles, pool: {**counted, reason: counted.get(reason, 0) + 1}})

    def with_reaped(self, processes: Iterable[Process], owner_pid: int) -> Counters:
        """Count the browsers among killed processes; one that took two kills counts once."""
        # What a browser started while it was being killed is a part of it, even with its parent gone.
        pids = {pid for pid, _ in self._killed}
        browsers = running_browsers(processes := tuple(processes), owner_pid)
        new = sum(
            pids.isdisjoint(pid for each in browser for pid in (each.pid, each.parent)) for browser in browsers
        )
        fresh = [process.key for process in processes if process.key not in self._killed]
        return replace(self, reaped=self.reaped + new, _killed=(*self._killed, *fresh)[-KILLED_REMEMBERED:])


@dataclass(frozen=True)
class PolicyState:
    """Immutable: every change makes a new one. Times are those of snapshots (seconds of CLOCK_BOOTTIME).

    Mappings by `str` are by pool, those by `Owner` by child, unless their comment says otherwise.
    """

    risk: float
    """The accepted chance that a child passes its budget in its whole life."""
    models: Mapping[str, PoolModel] = field(default_factory=dict)
    task_limits: Mapping[str, int] = field(default_factory=dict)
    """What a pool's tasks may take, where each has a limit."""
    retired: Mapping[Owner, float] = field(default_factory=dict)
    """When each child was told to exit because of its memory."""
    preempted: float | None = None
    """When a child was last preempted."""
    preempted_children: Set[Owner] = frozenset()
    """Those that have not been counted as departed yet."""
    replaced: Mapping[str, float] = field(default_factory=dict)
    """When each worker was last replaced."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Workers that an operator wants replaced, with the reason for the log."""
    successors: Mapping[str, Successor] = field(default_factory=dict)
    failed_rollouts: Mapping[str, float] = field(default_factory=dict)
    """When each pool's last replacement failed."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why it failed."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many retirements in a row each worker refused."""
    scaled: Mapping[str, float] = field(default_factory=dict)
    """When each concurrency was last changed."""
    clean_lifetimes: Mapping[str, int] = field(default_factory=dict)
    """How many children in a row reached the present max-tasks-per-child with no action of the governor."""
    changed: Set[str] = frozenset()
    """Pools whose max-tasks-per-child was changed in the settings since the last decision."""
    busy_since: Mapping[str, float] = field(default_factory=dict)
    """Since when all children have been busy while messages wait; absent where they are not."""
    idle_since: Mapping[str, float] = field(default_factory=dict)
    """Since when a child has been idle while no message waits; absent where none is."""
    lease_owners: Mapping[str, LeaseOwner] = field(default_factory=dict)
    """By generation."""
    child_deaths: Mapping[Owner, DeathReport] = field(default_factory=dict)
    """Children that died during a task since the last snapshot."""
    stalls: Mapping[Owner, StalledTask] = field(default_factory=dict)
    """For each child with a task, since when that has been stalled."""
    unhealthy: Mapping[str, Unhealthy] = field(default_factory=dict)
    restart_backoffs: Mapping[str, RestartBackoff] = field(default_factory=dict)
    timed_out: Mapping[Owner, float] = field(default_factory=dict)
    """When a worker was asked to enforce each child's time limit."""
    interrupted: Mapping[Owner, InterruptedTask] = field(default_factory=dict)
    """The last task of each child that was told to end for its memory."""
    failed_tasks: Mapping[Owner, float] = field(default_factory=dict)
    """When each child's worker was asked to fail its task for its memory."""
    dismissed: Mapping[Owner, float] = field(default_factory=dict)
    """When each child that had traced allocations was told to exit."""
    warned: Mapping[str, float] = field(default_factory=dict)
    """When each warning was last logged, by its topic."""
    known_foreign: Set[ProcessKey] = frozenset()
    """Foreign browsers' processes that were observed before."""
    counters: Counters = field(default_factory=Counters)

    @cached_property
    def headrooms(self) -> Mapping[str, int]:
        """`headroom_bytes` of every pool: needed many times in a decision, and expensive to compute."""
        headrooms = {pool: headroom_bytes(model, self.risk) for pool, model in self.models.items()}
        # One that was ended for its memory is among those learned from, and reserves none for the next.
        return {pool: min(size, self.task_limits.get(pool, size)) for pool, size in headrooms.items()}

    def headroom_bytes(self, pool: str) -> int:
        """Return what a pool's next task may need on top of its child's tree; 0 while nothing is known."""
        return self.headrooms.get(pool, 0)

    def fresh_child_bytes(self, pool: str) -> int:
        """Return the memory of a pool's fresh child; 0 while nothing is known."""
        model = self.models.get(pool)
        return int(model.fresh_child_bytes or 0) if model is not None else 0

    def is_being_replaced(self, pool: str) -> bool:
        """Return whether a pool's worker is about to be replaced, or its successor to take over."""
        return pool in self.asked or pool in self.successors

    def with_failed_replacement(self, pool: str, line: str, at: float) -> PolicyState:
        """Record why a pool's worker was not replaced."""
        return replace(
            self,
            successors=without_key(self.successors, pool),
            failures={**self.failures, pool: line},
            failed_rollouts={**self.failed_rollouts, pool: at},
        )

    def with_replaced(self, pool: str) -> PolicyState:
        """Count a replaced worker."""
        counters = self.counters.with_recycle(pool, "replace")
        return replace(self, counters=counters, refused=without_key(self.refused, pool))

    def with_restart(self, pool: str, at: float) -> PolicyState:
        """Record the restart of an unhealthy worker: one more in a row, or the first after a long time."""
        before = self.restart_backoffs.get(pool)
        in_a_row = before is not None and at - before.at < 2 * MAX_RESTART_BACKOFF_SECONDS
        times = before.times + 1 if before is not None and in_a_row else 1
        return replace(self, restart_backoffs={**self.restart_backoffs, pool: RestartBackoff(at, times)})


def without_key(mapping: Mapping[Name, Value], key: Name) -> dict[Name, Value]:
    """Return the mapping without a key, which it need not have."""
    return {other: value for other, value in mapping.items() if other != key}


def is_recent(then: float | None, at: float, seconds: float) -> bool:
    """Return whether `then` is less than `seconds` before `at`."""
    return then is not None and at - then < seconds
