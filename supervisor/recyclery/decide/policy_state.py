"""What earlier ticks leave to this one: what was learned, and what was done and when."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Literal

from recyclery.decide.memory_model import RISK, PoolModel, tail_bytes
from recyclery.decide.stalls import Silence
from recyclery.observe.snapshot import Owner, ProcessKey
from recyclery_worker.link import Fell

# If ending a worker did not help, the next time waits twice as long, up to so long.
MEND_AGAIN_SECONDS = 60.0
MEND_AGAIN_AT_MOST_SECONDS = 3600.0

Kind = Literal["hangs", "starves"]


@dataclass(frozen=True, slots=True)
class Ailment:
    """What is wrong with a worker, for how many seconds it was seen to be, and the messages it had taken."""

    kind: Kind
    pid: int
    received: int
    seconds: float
    at: float
    """When it was last looked at."""


@dataclass(frozen=True, slots=True)
class Mend:
    """When a worker was last ended for what is wrong with it, and how often in a row."""

    at: float
    times: int

    @property
    def pause_seconds(self) -> float:
        """How long not to do it again."""
        return min(MEND_AGAIN_AT_MOST_SECONDS, MEND_AGAIN_SECONDS * 2.0 ** (self.times - 1))


@dataclass(frozen=True, slots=True)
class Holder:
    """One start of a worker: its main process, and the pids of the children it had when last heard or seen."""

    generation: str
    pool: str
    pid: int
    children: frozenset[int] = frozenset()
    given_back: bool = False


@dataclass(frozen=True, slots=True)
class Fallen:
    """A pool's child that was at a task when last seen, and is gone."""

    pool: str
    fell: Fell


@dataclass(frozen=True, slots=True)
class Past:
    """Times are those of the snapshots (seconds of CLOCK_BOOTTIME)."""

    models: Mapping[str, PoolModel] = field(default_factory=dict)
    risk: float = RISK
    tails: Mapping[str, int] = field(init=False)
    """What each pool's next task may need on top of its child's tree, at that risk."""
    retired: Mapping[Owner, float] = field(default_factory=dict)
    """When each child was asked to leave."""
    replaced: Mapping[str, float] = field(default_factory=dict)
    """When each pool was last given a new worker."""
    asked: Mapping[str, str] = field(default_factory=dict)
    """Pools whose worker a person wants replaced, and what the log is to say of it."""
    abandoned: Mapping[str, float] = field(default_factory=dict)
    """When each pool's last successor did not come to take tasks."""
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
    preempted: float | None = None
    holders: Mapping[str, Holder] = field(default_factory=dict)
    """Who holds messages, by generation."""
    fallen: tuple[Fallen, ...] = ()
    """Children that died with a task in hand since the last look."""
    silences: Mapping[Owner, Silence] = field(default_factory=dict)
    """For each child at a task, since when it has done nothing."""
    ailments: Mapping[str, Ailment] = field(default_factory=dict)
    """What is wrong with workers as such, by pool."""
    mended: Mapping[str, Mend] = field(default_factory=dict)
    """When workers were last ended for that."""
    timed_out: Mapping[Owner, float] = field(default_factory=dict)
    """When the end of each child's task was asked for that was past its hard time limit."""
    dismissed: Mapping[Owner, float] = field(default_factory=dict)
    """When each child that had traced allocations was asked to leave."""
    known_strangers: Set[ProcessKey] = frozenset()
    """Browser processes of strangers that were seen before."""

    def __post_init__(self) -> None:
        # Asked for many times in a decision, and the dearest figure of a model.
        tails = {pool: tail_bytes(model, self.risk) for pool, model in self.models.items()}
        object.__setattr__(self, "tails", tails)

    def tail_bytes(self, pool: str) -> int:
        """Return what a pool's next task may need on top of its child's tree; 0 while nothing is known."""
        return self.tails.get(pool, 0)


def is_recent(then: float | None, at: float, seconds: float) -> bool:
    """Tell whether something was done less than `seconds` ago."""
    return then is not None and at - then < seconds
