"""What a pool's tasks cost in memory, learned from the tasks it has run.

Values and pure functions: no clock, no I/O. msgspec stores a `PoolModel` as it is; full, with few task names,
that is 8 kB of JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, median
from typing import NamedTuple

from recyclery.common.statistics import mean_excess
from recyclery.observe.snapshot import Child, Owner, Snapshot

# The chance, over a child's whole life, that it passes its budget, unless the settings say otherwise.
RISK = 0.01

KEPT_RUNS = 200
KEPT_FRESH = 20
KEPT_NAMES = 50
# The newest runs that must all be on one side of the older ones' median before these are forgotten.
# A fall waits longer: a lull between two heavy batches is no reason to forget the heavy one.
RISEN_RUNS = 16
FALLEN_RUNS = 64
# Differences below this are no shift: a warm-up slows down within an octave too.
SHIFT_BYTES = 1 << 20
# So many older runs make a median worth comparing with.
COMPARED_RUNS = 5

# Below this many runs there is no tail to fit, only a largest.
FITTED_RUNS = 5
TAIL_SHARE = 0.1
# A fit may go this much beyond the largest seen. Further out it is fooled by tasks of two kinds, whose gap
# it takes for a tail.
BEYOND_LARGEST = 1.1
# Tasks near the budget in one life, at most: where nothing grows, a child stays there until its maximum.
MOST_EXPOSED = 100.0


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task's memory: its child's tree before it, the most seen while it ran, and after it. Bytes.

    `after_bytes` is None where others had ended too before the next look: what it left itself is not known.
    """

    pool: str
    task_name: str
    tasks_before: int
    before_bytes: int
    peak_bytes: int
    after_bytes: int | None


class Step(NamedTuple):
    """A child's idle tree around its task number `tasks_before`, counted from 0."""

    tasks_before: int
    before_bytes: int
    after_bytes: int

    @property
    def growth_bytes(self) -> int:
        """What the task left; below 0 where the child shrank."""
        return self.after_bytes - self.before_bytes


@dataclass(frozen=True, slots=True)
class TaskCost:
    """One task name's share: runs known, mean and variance of what one leaves, and the largest tail."""

    runs: int = 0
    growth_bytes: float = 0.0
    growth_variance: float = 0.0
    largest_tail_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PoolModel:
    """A pool's children as learned so far; in each tuple the newest is last.

    `baseline_bytes` is the smallest idle tree seen, `tails` the peaks above where their tasks began, `steps`
    the idle trees around the tasks, `fresh_bytes` the idle trees before a child's first task, `tasks` the costs
    by task name, the one that ran last at the end.
    """

    baseline_bytes: int | None = None
    tails: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    fresh_bytes: tuple[int, ...] = ()
    tasks: dict[str, TaskCost] = field(default_factory=dict)

    @property
    def fresh_child_bytes(self) -> float | None:
        """A fresh child's idle tree: the middle of those seen, else the smallest idle tree of any child."""
        return median(self.fresh_bytes) if self.fresh_bytes else self.baseline_bytes


def learn(model: PoolModel, run: TaskRun) -> PoolModel:
    """Return the model with one more run in it, without the older ones if the newest are of another kind."""
    after = run.after_bytes
    tail = max(0, max(run.peak_bytes, after or 0) - run.before_bytes)
    tails = (*model.tails, tail)[-KEPT_RUNS:]
    step = () if after is None else (Step(run.tasks_before, run.before_bytes, after),)
    steps = (*model.steps, *step)[-KEPT_RUNS:]
    kept = runs_since_shift(tails, steps)
    fresh = (*model.fresh_bytes, run.before_bytes)[-KEPT_FRESH:] if run.tasks_before == 0 else model.fresh_bytes
    return replace(
        model,
        tails=tails[-kept:],
        steps=steps[-kept:],
        fresh_bytes=fresh,
        tasks=learn_task(model.tasks, run, tail),
    )


def learn_idle(model: PoolModel, idle_bytes: int) -> PoolModel:
    """Return the model after one look at an idle child's tree."""
    if model.baseline_bytes is not None and model.baseline_bytes <= idle_bytes:
        return model
    return replace(model, baseline_bytes=idle_bytes)


def learn_task(tasks: dict[str, TaskCost], run: TaskRun, tail: int) -> dict[str, TaskCost]:
    """Return the costs by name after this run; the name that ran longest ago makes room for a new one."""
    cost = tasks.get(run.task_name, TaskCost())
    cost = replace(cost, largest_tail_bytes=max(cost.largest_tail_bytes, tail))
    if run.after_bytes is not None:
        cost = learn_growth(cost, run.after_bytes - run.before_bytes)
    others = {name: known for name, known in tasks.items() if name != run.task_name}
    return {**dict(list(others.items())[1 - KEPT_NAMES :]), run.task_name: cost}


def learn_growth(cost: TaskCost, growth_bytes: int) -> TaskCost:
    """Return a name's cost after one more run that left so much."""
    # A mean of the newest runs: each weighs at least 1 / KEPT_RUNS, so old ones fade.
    weight = 1 / min(cost.runs + 1, KEPT_RUNS)
    away = growth_bytes - cost.growth_bytes
    return replace(
        cost,
        runs=cost.runs + 1,
        growth_bytes=cost.growth_bytes + weight * away,
        growth_variance=(1 - weight) * (cost.growth_variance + weight * away**2),
    )


def runs_since_shift(tails: Sequence[int], steps: Sequence[Step]) -> int:
    """Return how many of the newest runs are of the present kind: since peaks or growth shifted, or all."""
    for newest, sign in ((RISEN_RUNS, 1), (FALLEN_RUNS, -1)):
        if tails_shifted(tails, newest, sign) or growth_shifted(steps, newest, sign):
            return newest
    return KEPT_RUNS


def tails_shifted(tails: Sequence[int], newest: int, sign: int) -> bool:
    """Tell whether the newest tails are all above (`sign` 1) or all below (-1) the median of the older ones."""
    older = tails[:-newest]
    if len(older) < COMPARED_RUNS:
        return False
    middle = median(older)
    return all((tail - middle) * sign > SHIFT_BYTES for tail in tails[-newest:])


def growth_shifted(steps: Sequence[Step], newest: int, sign: int) -> bool:
    """Tell the same of growth, each step against older ones at a like place in their child's life.

    Like places are those of one octave (1, 2 to 3, 4 to 7 and so on): a warm-up comes in every life and is no
    shift.
    """
    middles: dict[int, float] = {}
    for step in steps[-newest:]:
        octave = (step.tasks_before + 1).bit_length()
        if octave not in middles:
            like = [
                older.growth_bytes
                for older in steps[:-newest]
                if (older.tasks_before + 1).bit_length() == octave
            ]
            if len(like) < COMPARED_RUNS:
                return False
            middles[octave] = median(like)
        if (step.growth_bytes - middles[octave]) * sign <= SHIFT_BYTES:
            return False
    return bool(steps)


def tail_bytes(model: PoolModel, risk: float = RISK) -> int:
    """Return what the next task may need on top of its child's tree; 0 while nothing is known.

    Peaks over threshold: above the 90 % quantile the excess is taken for exponential. `risk` is that of a whole
    life. A tree that grows towards its budget is at risk in about mean excess / growth tasks: summed over a
    life, the chances to pass are P(tail > Q) times that. Never below the largest seen, nor far above it.
    """
    if not model.tails:
        return 0
    known = len(model.tails)
    largest = max(model.tails)
    # The next of n + 1 is the largest of all with a chance of 1 / (n + 1): few runs promise little.
    most = largest * max(BEYOND_LARGEST, 1 + 1 / known)
    if known < FITTED_RUNS:
        return int(most)
    above = max(2, math.ceil(TAIL_SHARE * known))
    threshold, excess = mean_excess(sorted(model.tails, reverse=True), above)
    growth = fmean(step.growth_bytes for step in model.steps) if model.steps else 0.0
    exposed = min(MOST_EXPOSED, excess / growth) if growth > 0 else MOST_EXPOSED
    fitted = threshold + excess * math.log(max(1.0, above / known * exposed / risk))
    return int(min(most, max(largest, fitted)))


@dataclass(frozen=True, slots=True)
class TaskTracker:
    """One child: its tree when last seen idle, the most seen since, and the task it was last seen at."""

    tasks_done: int
    idle_bytes: int | None
    peak_bytes: int
    task_name: str | None


def follow(
    tracks: Mapping[Owner, TaskTracker], snapshot: Snapshot
) -> tuple[dict[Owner, TaskTracker], list[TaskRun]]:
    """Return the tracks after this snapshot, without those of children gone, and the runs that ended in it."""
    followed, runs = {}, []
    for child in snapshot.children:
        track, run = update_tracker(tracks.get(child.owner), child)
        followed[child.owner] = track
        # One that traces allocations holds its records of them too.
        if run is not None and not child.tracing:
            runs.append(run)
    return followed, runs


def update_tracker(track: TaskTracker | None, child: Child) -> tuple[TaskTracker, TaskRun | None]:
    """Return one child's track after this look at it, and its run if one ended since the last.

    Where more than one did, it is the run of the one that was seen under way.
    """
    tree = child.tree_bytes
    idle = child.task_id is None
    fresh = TaskTracker(
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
