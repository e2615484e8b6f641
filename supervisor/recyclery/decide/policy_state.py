"""What earlier ticks leave to this one: what was learned, what was done and when, and what has been counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

from recyclery.decide.memory_model import PoolModel, tail_bytes
from recyclery.decide.stalls import StalledTask
from recyclery.observe.ownership import count_browsers
from recyclery.observe.snapshot import Owner, Process, ProcessKey
from recyclery_worker.link import Fell

# If ending a worker did not help, the next time waits twice as long, up to so long.
RESTART_BACKOFF_SECONDS = 60.0
MAX_RESTART_BACKOFF_SECONDS = 3600.0
# A warning is logged again when it has lasted so long.
WARN_AGAIN_SECONDS = 600.0
KILLED_REMEMBERED = 500

Fault = Literal["hangs", "starves"]
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Unhealthy:
    """What is wrong with a worker, for how many seconds it was seen to be, and the messages it had taken."""

    kind: Fault
    pid: int
    received: int
    seconds: float
    at: float
    """When it was last looked at."""


@dataclass(frozen=True, slots=True)
class RestartBackoff:
    """When a worker was last ended for what is wrong with it, and how often in a row."""

    at: float
    times: int

    @property
    def pause_seconds(self) -> float:
        """How long not to do it again."""
        return min(MAX_RESTART_BACKOFF_SECONDS, RESTART_BACKOFF_SECONDS * 2.0 ** (self.times - 1))


@dataclass(frozen=True, slots=True)
class LeaseOwner:
    """One start of a worker: its main process, and the pids of the children it had when last heard or seen."""

    generation: str
    pool: str
    pid: int
    children: frozenset[int] = frozenset()
    given_back: bool = False


@dataclass(frozen=True, slots=True)
class ChildDeath:
    """A pool's child that was at a task when last seen, and is gone."""

    pool: str
    death: Fell


@dataclass(frozen=True, slots=True)
class Successor:
    """A worker that was started to take over from another, and when; whether it was seen since."""

    slot: str
    at: float
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Counters:
    """What the governor has counted since its start. No decision goes by it."""

    reaped: int = 0
    """Browsers that were killed."""
    grid_ended: int = 0
    """Sessions that were ended on a Grid."""
    recycles: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By pool and reason."""
    parked: int = 0
    """Tasks that wait in the parked list, as the workers report it."""
    reclaimed_by: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """How many messages each worker has given back for dead ones, as it reports."""
    _killed: tuple[ProcessKey, ...] = ()

    @property
    def reclaimed(self) -> int:
        """Messages given back for dead workers."""
        return sum(self.reclaimed_by.values())

    def with_recycle(self, pool: str, reason: str) -> Counters:
        """Count one child, or one worker, of a pool that has gone."""
        counted = self.recycles.get(pool, {})
        return replace(self, recycles={**self.recycles, pool: {**counted, reason: counted.get(reason, 0) + 1}})

    def with_reaped(self, processes: Iterable[Process], owner_pid: int) -> Counters:
        """Count the browsers among killed processes; one that took a second kill is still one."""
        fresh = [process for process in processes if process.key not in self._killed]
        killed = (*self._killed, *(process.key for process in fresh))[-KILLED_REMEMBERED:]
        return replace(self, reaped=self.reaped + count_browsers(fresh, owner_pid), _killed=killed)


@dataclass(frozen=True)
class PolicyState:
    """Never changed in place: whatever changes it makes a new one.

    Times are those of the snapshots (seconds of CLOCK_BOOTTIME).
    """

    risk: float
    """The chance, over a child's whole life, that it passes its budget."""
    models: Mapping[str, PoolModel] = field(default_factory=dict)
    retired: Mapping[Owner, float] = field(default_factory=dict)
    """When each child was asked to leave."""
    preempted: float | None = None
    """When a child was last killed before the kernel could choose a victim."""
    preempted_children: Set[Owner] = frozenset()
    """Children that were killed so and have not been counted as gone yet."""
    replaced: Mapping[str, float] = field(default_factory=dict)
    """When each pool was last given a new worker."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Pools whose worker a person wants replaced, and what the log is to say of it."""
    successors: Mapping[str, Successor] = field(default_factory=dict)
    """Of each pool whose worker is being replaced by one started beside it."""
    failed_rollouts: Mapping[str, float] = field(default_factory=dict)
    """When each pool's last replacement came to nothing."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Why it came to nothing, in words."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many retirements in a row a pool's worker refused."""
    scaled: Mapping[str, float] = field(default_factory=dict)
    """When each pool's concurrency was last changed."""
    clean_lifetimes: Mapping[str, int] = field(default_factory=dict)
    """How many children of each pool in a row reached the limit now in force without any rung's help."""
    changed: Set[str] = frozenset()
    """Pools whose max-tasks-per-child was changed in the settings since the last decision."""
    busy_since: Mapping[str, float] = field(default_factory=dict)
    """Since when each pool has had every child at work and tasks waiting; absent where it has not."""
    idle_since: Mapping[str, float] = field(default_factory=dict)
    """Since when each pool has had a child without work; absent where it has not."""
    lease_owners: Mapping[str, LeaseOwner] = field(default_factory=dict)
    """Who holds messages, by generation."""
    child_deaths: tuple[ChildDeath, ...] = ()
    """Children that died with a task in hand since the last look."""
    silences: Mapping[Owner, StalledTask] = field(default_factory=dict)
    """For each child at a task, since when it has done nothing."""
    unhealthy: Mapping[str, Unhealthy] = field(default_factory=dict)
    """What is wrong with workers as such, by pool."""
    restart_backoffs: Mapping[str, RestartBackoff] = field(default_factory=dict)
    """When workers were last ended for that."""
    timed_out: Mapping[Owner, float] = field(default_factory=dict)
    """When the end of each child's task was asked for that was past its hard time limit."""
    dismissed: Mapping[Owner, float] = field(default_factory=dict)
    """When each child that had traced allocations was asked to leave."""
    warned: Mapping[str, float] = field(default_factory=dict)
    """When each warning was last given, by its topic."""
    known_foreign: Set[ProcessKey] = frozenset()
    """Browser processes of strangers that were seen before."""
    counters: Counters = field(default_factory=Counters)

    @cached_property
    def tails(self) -> Mapping[str, int]:
        """What each pool's next task may need on top of its child's tree, at that risk.

        Asked for many times in a decision, and the most expensive figure of a model.
        """
        return {pool: tail_bytes(model, self.risk) for pool, model in self.models.items()}

    def headroom_bytes(self, pool: str) -> int:
        """Return what a pool's next task may need on top of its child's tree; 0 while nothing is known."""
        return self.tails.get(pool, 0)

    def is_being_replaced(self, pool: str) -> bool:
        """Tell whether a pool is to have a new worker, or one is about to take over."""
        return pool in self.asked or pool in self.successors

    def with_failed_replacement(self, pool: str, line: str, at: float) -> PolicyState:
        """Keep why a pool's worker was not replaced."""
        return replace(
            self,
            successors=without_key(self.successors, pool),
            failures={**self.failures, pool: line},
            failed_rollouts={**self.failed_rollouts, pool: at},
        )

    def with_replaced(self, pool: str) -> PolicyState:
        """Count a worker that was replaced as a whole."""
        counters = self.counters.with_recycle(pool, "replace")
        return replace(self, counters=counters, refused=without_key(self.refused, pool))

    def with_mend(self, pool: str, at: float) -> PolicyState:
        """Keep that a pool's worker was ended: once more in a row, or the first time after long."""
        before = self.restart_backoffs.get(pool)
        in_a_row = before is not None and at - before.at < 2 * MAX_RESTART_BACKOFF_SECONDS
        times = before.times + 1 if before is not None and in_a_row else 1
        return replace(self, restart_backoffs={**self.restart_backoffs, pool: RestartBackoff(at, times)})


def without_key(mapping: Mapping[Key, Value], key: Key) -> dict[Key, Value]:
    """Return the mapping without a key, which it need not have."""
    return {other: value for other, value in mapping.items() if other != key}


def is_recent(then: float | None, at: float, seconds: float) -> bool:
    """Tell whether something was done less than `seconds` ago."""
    return then is not None and at - then < seconds
