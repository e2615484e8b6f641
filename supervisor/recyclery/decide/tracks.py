"""Follows each child's memory from tick to tick and yields a `TaskRun` for every task seen to its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from recyclery.decide.model import TaskRun
from recyclery.observe.snapshot import Child, Owner, Snapshot


@dataclass(frozen=True, slots=True)
class Track:
    """One child: its tree when last seen idle, the most seen since, and the task it was last seen at."""

    tasks_done: int
    idle_bytes: int | None
    peak_bytes: int
    task_name: str | None


def follow(tracks: Mapping[Owner, Track], snapshot: Snapshot) -> tuple[dict[Owner, Track], list[TaskRun]]:
    """Return the tracks after this snapshot, without those of children gone, and the runs that ended in it."""
    followed, runs = {}, []
    for child in snapshot.children:
        track, run = follow_child(tracks.get(child.owner), child)
        followed[child.owner] = track
        # One that traces allocations holds its records of them too.
        if run is not None and not child.tracing:
            runs.append(run)
    return followed, runs


def follow_child(track: Track | None, child: Child) -> tuple[Track, TaskRun | None]:
    """Return one child's track after this look at it, and its run if one ended since the last.

    Where more than one did, it is the run of the one that was seen under way.
    """
    tree = child.tree_bytes
    idle = child.task_id is None
    fresh = Track(
        tasks_done=child.tasks_done,
        idle_bytes=tree if idle else None,
        peak_bytes=tree,
        task_name=child.task_name,
    )
    if track is None:
        return fresh, None
    if child.tasks_done == track.tasks_done:
        if idle:
            # An idle child does not grow, but for a fresh one: a task has begun that was not told of yet.
            seen = tree if track.idle_bytes is None or child.tasks_done == 0 else min(tree, track.idle_bytes)
            return replace(fresh, idle_bytes=seen, task_name=None), None
        return replace(
            track, peak_bytes=max(track.peak_bytes, tree), task_name=child.task_name or track.task_name
        ), None
    if not idle:
        # The next task is under way: only the child itself saw what the last one left.
        fresh = replace(fresh, idle_bytes=child.idle_bytes or None)
    after = fresh.idle_bytes if child.tasks_done == track.tasks_done + 1 else None
    if track.idle_bytes is None or (after is None and track.task_name is None):
        return fresh, None
    return fresh, TaskRun(
        pool=child.owner.pool,
        task_name=track.task_name or "",
        tasks_before=track.tasks_done,
        before_bytes=track.idle_bytes,
        peak_bytes=max(track.peak_bytes, after or 0),
        after_bytes=after,
    )
