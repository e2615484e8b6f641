"""The actions that may be decided on, each with its reason in words and figures for the log.

`kind` is an action's name in the history, which reports and the page read: it stays when a class is renamed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recyclery.observe.snapshot import Owner, Process, Remains
from recyclery_worker.link import Fell


@dataclass(frozen=True, slots=True)
class Reap:
    """Kill processes that no live task owns (rung 0)."""

    kind: ClassVar[str] = "reap"
    cause: str
    """`orphans`: their child is dead. `leftovers`: a finished task's browser. `strays`: a browser without its
    chromedriver, or the other way round. `runaway`: a task hangs at it."""
    owner: Owner
    processes: tuple[Process, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Kill browsers that no pool started; never decided on, only asked for."""

    kind: ClassVar[str] = "evict"
    processes: tuple[Process, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Clean:
    """Remove what browsers that are gone have left on disk (rung 0)."""

    kind: ClassVar[str] = "clean"
    remains: tuple[Remains, ...]


@dataclass(frozen=True, slots=True)
class EndSession:
    """End a session that a dead child has open on the Selenium Grid (rung 0)."""

    kind: ClassVar[str] = "endsession"
    owner: Owner
    session: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Have a living child collect its ended browser processes (rung 0)."""

    kind: ClassVar[str] = "collect"
    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class TellFell:
    """Tell a worker what was seen of a child that died with a task in hand, for the task's own history."""

    kind: ClassVar[str] = "tellfell"
    through: str
    fell: Fell


@dataclass(frozen=True, slots=True)
class Reclaim:
    """Have what a dead worker held given back to its queues, by the living worker in the slot `through`."""

    kind: ClassVar[str] = "reclaim"
    pool: str
    generation: str
    through: str
    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Let a child leave after its current task (rung 2)."""

    kind: ClassVar[str] = "retire"
    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Let a child leave after its current task that is no common one any more."""

    kind: ClassVar[str] = "dismiss"
    owner: Owner
    slot: str
    """Of its worker."""
    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Give a pool a new worker (rung 4)."""

    kind: ClassVar[str] = "replace"
    pool: str
    reason: str
    slot: str = ""
    """Of the worker that is to go."""
    successor: str | None = None
    """The slot in which its successor starts beside it; None where memory does not allow two at once: then it
    stops after its running tasks, and starts anew."""


@dataclass(frozen=True, slots=True)
class Leave:
    """Have a worker leave after its running tasks: its successor takes tasks (rung 4, second half)."""

    kind: ClassVar[str] = "leave"
    pool: str
    slot: str
    successor: str
    reason: str


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop a successor that does not come to take tasks; the worker that it was to follow goes on."""

    kind: ClassVar[str] = "abandon"
    pool: str
    slot: str
    reason: str


@dataclass(frozen=True, slots=True)
class KillWorker:
    """Kill a worker whose main process hears nothing, with all below it; its tasks are given back (rung 4)."""

    kind: ClassVar[str] = "killworker"
    pool: str
    processes: tuple[Process, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class TimeOut:
    """Have a worker end a child's task that is past its hard time limit."""

    kind: ClassVar[str] = "timeout"
    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Preempt:
    """Kill a child's whole session before the kernel picks a victim; its task is redelivered (rung 5)."""

    kind: ClassVar[str] = "preempt"
    owner: Owner
    processes: tuple[Process, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Tune:
    """Set a pool's max-tasks-per-child, for living and coming children (rung 1)."""

    kind: ClassVar[str] = "tune"
    pool: str
    max_tasks: int
    reason: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Have a pool take no more tasks, or take them again (rung 3)."""

    kind: ClassVar[str] = "hold"
    pool: str
    on: bool
    renewed: bool
    """Whether it only goes on: nothing to say."""
    reason: str


@dataclass(frozen=True, slots=True)
class Scale:
    """Change how many tasks a pool runs at a time."""

    kind: ClassVar[str] = "scale"
    pool: str
    concurrency: int
    reason: str


@dataclass(frozen=True, slots=True)
class Notice:
    """Say what no action helps; said once as long as it lasts."""

    kind: ClassVar[str] = "notice"
    topic: str
    text: str


Heavy = Retire | Replace | KillWorker | Preempt
Action = (
    Reap
    | Evict
    | Clean
    | EndSession
    | Collect
    | Reclaim
    | TellFell
    | Tune
    | Retire
    | Dismiss
    | Hold
    | Replace
    | Leave
    | Abandon
    | KillWorker
    | TimeOut
    | Preempt
    | Scale
    | Notice
)
