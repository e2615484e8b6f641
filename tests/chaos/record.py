"""What was seen of a run under faults: values that the player writes down and the auditor judges.

Times are seconds of CLOCK_BOOTTIME, pids those inside the container.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

FOREVER = float("inf")
DEADLY = ("kill child", "kill main", "quit main", "kill container", "preempt", "oom kill")
# No task of a run takes longer.
LONGEST_SECONDS = 10.0


@dataclass(frozen=True)
class Run:
    """One run of a task, written down by the task itself; `ended` is None where it never came to that."""

    task: int
    box: str
    main: int
    child: int
    began: float
    ended: float | None = None
    failed: bool = False
    clock_off: float = 0.0
    """How far the time of day was from the real one where it ran, as it began."""


@dataclass(frozen=True)
class Blow:
    """A fault that was dealt, and whom it hit; without mains and children the whole container."""

    kind: str
    box: str
    began: float
    ended: float
    mains: frozenset[int] = frozenset()
    children: frozenset[int] = frozenset()

    @property
    def is_deadly(self) -> bool:
        """Whether those that it hit are dead afterwards."""
        return self.kind in DEADLY

    @property
    def hits_redis(self) -> bool:
        """Whether it hit what all share."""
        return self.kind.endswith("redis")

    def hits(self, run: Run) -> bool:
        """Tell whether the processes of a run are among those hit."""
        if self.hits_redis:
            return True
        if self.box != run.box:
            return False
        everything = not self.mains and not self.children
        return everything or run.main in self.mains or run.child in self.children


@dataclass(frozen=True)
class Look:
    """A look at Redis, which was read at some moment between `began` and `ended`."""

    began: float
    ended: float
    missing: frozenset[int]
    """Tasks that had been sent and were neither waiting, nor in hand, nor done."""
    on_the_way: frozenset[int] = frozenset()
    """Tasks that were just being sent: they may have been there, or not."""


@dataclass(frozen=True)
class Event:
    """What a container said of a worker's main process; `main` is None where it did not say of which."""

    box: str
    at: float
    text: str
    main: int | None = None
    before: tuple[str, ...] = ()
    """What the container had printed before."""


@dataclass(frozen=True)
class Kept:
    """For how long after its cold stop a worker's messages were in nobody's hand."""

    box: str
    began: float
    ended: float


@dataclass(frozen=True)
class Ending:
    """What there was when all had become quiet and was stopped."""

    keys: tuple[str, ...] = ()
    waiting: int = 0
    held: int = 0
    parked: tuple[bytes, ...] = ()
    exit_codes: dict[str, int | None] = field(default_factory=dict)
    defunct: tuple[str, ...] = ()
    browsers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """All that was seen."""

    sent: frozenset[int]
    """Tasks that the broker has accepted for certain."""
    doubtful: frozenset[int]
    """Tasks whose sending failed: they may be there, or not."""
    runs: tuple[Run, ...]
    blows: tuple[Blow, ...]
    looks: tuple[Look, ...]
    ending: Ending
    failing: frozenset[int] = frozenset()
    """Tasks that raise MemoryError."""
    due: dict[int, float] = field(default_factory=dict)
    """Tasks with a countdown, and when that is over."""
    garbage: dict[int, bytes] = field(default_factory=dict)
    """What the broker has accepted and is no task, each with its number in it."""
    taken_for_dead: tuple[Event, ...] = ()
    """Workers that others took for dead, but that were alive to say so."""
    deaths: tuple[Event, ...] = ()
    """Main processes that ended unasked."""
    kept: tuple[Kept, ...] = ()


def read_runs(lines: Iterable[str]) -> tuple[Run, ...]:
    """Return the runs that tasks have written down, in the order of their beginnings."""
    begun: dict[str, Run] = {}
    for line in lines:
        word = json.loads(line)
        if word["what"] == "begin":
            begun[word["run"]] = Run(
                word["task"],
                word["box"],
                word["main"],
                word["child"],
                word["at"],
                clock_off=word.get("clock_off", 0.0),
            )
        else:
            run = begun[word["run"]]
            begun[word["run"]] = replace(run, ended=word["at"], failed=word["what"] == "fail")
    return tuple(sorted(begun.values(), key=lambda run: run.began))


def name_victims(blow: Blow, runs: Iterable[Run]) -> Blow:
    """Return the kernel's kill with its victims' names: who was at a task then, and never ended it."""
    victims = {
        run.child
        for run in runs
        if (run.box, run.ended) == (blow.box, None) and 0 <= blow.ended - run.began <= LONGEST_SECONDS
    }
    # Nobody has the number 0: without a number it would be all of the container.
    return replace(blow, children=frozenset(victims or {0}))
