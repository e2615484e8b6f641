"""The actions that may be decided on, each with its reason in words and figures for the log."""

from __future__ import annotations

from dataclasses import dataclass

from recyclery.observe.snapshot import Owner, Process


@dataclass(frozen=True, slots=True)
class Reap:
    """Kill processes that no live task owns (rung 0)."""

    kind: str
    """`orphans`: their child is dead. `leftovers`: a finished task's browser."""
    owner: Owner
    processes: tuple[Process, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Collect:
    """Have a living child collect its ended browser processes (rung 0)."""

    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Let a child leave after its current task (rung 2)."""

    owner: Owner
    reason: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Stop a whole worker after its running tasks and start it anew (rung 4)."""

    pool: str
    reason: str


@dataclass(frozen=True, slots=True)
class Preempt:
    """Kill a child's whole session before the kernel picks a victim; its task is redelivered (rung 5)."""

    owner: Owner
    processes: tuple[Process, ...]
    reason: str


Action = Reap | Collect | Retire | Replace | Preempt
