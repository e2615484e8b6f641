"""Follows for how long a child has done nothing at its task, and what CPU time its browsers use meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recyclery.observe.snapshot import TICK_SECONDS, Child, Owner, ProcessKey, Snapshot

# What Python may use and still counts as silent. One that asks its browser twice a second uses it in 10 s.
NO_CPU_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class StalledTask:
    """Since when a child is silent at its task, and what had been used then, in clock ticks."""

    task_id: str
    task_seen: float
    """When it was first seen at this task."""
    since: float
    python_ticks: int
    browser_ticks: Mapping[ProcessKey, int] = field(default_factory=dict)


def update_stalls(silences: Mapping[Owner, StalledTask], snapshot: Snapshot) -> dict[Owner, StalledTask]:
    """Return the silences after this snapshot: one for each child that runs a task."""
    followed = {}
    for child in snapshot.children:
        if child.task_id is not None:
            followed[child.owner] = follow_silence(silences.get(child.owner), child, child.task_id, snapshot.at)
    return followed


def follow_silence(before: StalledTask | None, child: Child, task_id: str, at: float) -> StalledTask:
    """Return one child's silence: the same while it lasts, else one that begins now."""
    ticks = sum(process.cpu_ticks for process in child.processes if process.pid == child.owner.pid)
    same_task = before is not None and before.task_id == task_id
    if before is not None and same_task and (ticks - before.python_ticks) * TICK_SECONDS <= NO_CPU_SECONDS:
        return before
    return StalledTask(
        task_id=task_id,
        task_seen=before.task_seen if before is not None and same_task else at,
        since=at,
        python_ticks=ticks,
        browser_ticks={process.key: process.cpu_ticks for process in child.processes if process.is_browser},
    )
