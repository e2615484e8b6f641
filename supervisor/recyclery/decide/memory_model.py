"""A pool's memory model, learned from its task runs: a fresh child, growth per task, headroom of the next task.

Values and pure functions: no clock, no I/O. A full `PoolModel` with few task names is 8 kB of JSON. The *tail*
    of a run is its peak above the memory of its idle child before; the *headroom* of the next task is the tail
    that it passes with a small chance only.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from recyclery.common.statistics import mean_excess
from recyclery.observe.snapshot import Child, Owner, Snapshot

# The accepted chance that a child passes its budget in its whole life, unless the settings say otherwise.
RISK = 0.01

KEPT_RUNS = 200
KEPT_FRESH = 20
KEPT_NAMES = 50
# The older runs are dropped when this many newest runs are all above, or all below, their median.
# A fall needs more of them: a lull between two heavy batches is no reason to forget the heavy one.
RISEN_RUNS = 16
FALLEN_RUNS = 64
# Differences below this are no shift.
SHIFT_BYTES = 1 << 20
# The fewest older runs whose median is compared with.
COMPARED_RUNS = 5

# With fewer runs no distribution is fitted: the largest tail counts.
FITTED_RUNS = 5
TAIL_SHARE = 0.1
# The most that a fit may exceed the largest tail by: two kinds of tasks look like one long tail.
BEYOND_LARGEST = 1.1
# The most tasks per life that are run near the budget; without growth a child stays there all its life.
MOST_EXPOSED = 100.0


class TaskRun(Struct, frozen=True):
    """One task's memory: its child's process tree before it, the peak while it ran, and after it, in bytes.

    `after_bytes` is None where other tasks had ended too before the next snapshot.
    """

    pool: str
    task_name: str
    tasks_before: int
    before_bytes: int
    peak_bytes: int
    after_bytes: int | None


class GrowthStep(NamedTuple):
    """A child's idle memory before and after its task number `tasks_before`, counted from 0."""

    tasks_before: int
    before_bytes: int
    after_bytes: int

    @property
    def growth_bytes(self) -> int:
        """The memory that the task left; negative where the child shrank."""
        return self.after_bytes - self.before_bytes


class TaskCost(Struct, frozen=True):
    """A task name's runs, the mean and variance of its growth, and its largest tail."""

    runs: int = 0
    growth_bytes: float = 0.0
    growth_variance: float = 0.0
    largest_tail_bytes: int = 0


class PoolModel(Struct, frozen=True):
    """What was learned of a pool's children; in each tuple, and in `tasks` (by name), the newest is last.

    `baseline_bytes` is the smallest idle child, `fresh_bytes` the idle children before their first task.
    """

    baseline_bytes: int | None = None
    tails: tuple[int, ...] = ()
    steps: tuple[GrowthStep, ...] = ()
    fresh_bytes: tuple[int, ...] = ()
    tasks: dict[str, TaskCost] = {}

    @property
    def fresh_child_bytes(self) -> float | None:
        """A fresh child's memory: the median of those observed, else the smallest idle child."""
        return median(self.fresh_bytes) if self.fresh_bytes else self.baseline_bytes


def learn(model: PoolModel, run: TaskRun) -> PoolModel:
    """Return the model with one more run, without the older runs if the newest differ from them."""
    after = run.after_bytes
    tail = max(0, max(run.peak_bytes, after or 0) - run.before_bytes)
    tails = (*model.tails, tail)[-KEPT_RUNS:]
    step = () if after is None else (GrowthStep(run.tasks_before, run.before_bytes, after),)
    steps = (*model.steps, *step)[-KEPT_RUNS:]
    kept = runs_since_shift(tails, steps)
    fresh = (*model.fresh_bytes, run.before_bytes)[-KEPT_FRESH:] if run.tasks_before == 0 else model.fresh_bytes
    tasks = learn_task(model.tasks, run, tail)
    return replace(model, tails=tails[-kept:], steps=steps[-kept:], fresh_bytes=fresh, tasks=tasks)


def learn_idle(model: PoolModel, idle_bytes: int) -> PoolModel:
    """Return the model after one observation of an idle child."""
    if model.baseline_bytes is not None and model.baseline_bytes <= idle_bytes:
        return model
    return replace(model, baseline_bytes=idle_bytes)


def learn_task(tasks: dict[str, TaskCost], run: TaskRun, tail: int) -> dict[str, TaskCost]:
    """Return the costs by name after this run, without the name that ran longest ago if there are too many."""
    cost = tasks.get(run.task_name, TaskCost())
    cost = replace(cost, largest_tail_bytes=max(cost.largest_tail_bytes, tail))
    if run.after_bytes is not None:
        cost = learn_growth(cost, run.after_bytes - run.before_bytes)
    others = {name: known for name, known in tasks.items() if name != run.task_name}
    return {**dict(list(others.items())[1 - KEPT_NAMES :]), run.task_name: cost}


def learn_growth(cost: TaskCost, growth_bytes: int) -> TaskCost:
    """Return a name's cost after one more run with this growth."""
    # An exponential mean: each new run weighs at least 1 / KEPT_RUNS, so old ones fade.
    weight = 1 / min(cost.runs + 1, KEPT_RUNS)
    away = growth_bytes - cost.growth_bytes
    return replace(
        cost,
        runs=cost.runs + 1,
        growth_bytes=cost.growth_bytes + weight * away,
        growth_variance=(1 - weight) * (cost.growth_variance + weight * away**2),
    )


def runs_since_shift(tails: Sequence[int], steps: Sequence[GrowthStep]) -> int:
    """Return how many of the newest runs have come since tails or growth shifted; KEPT_RUNS without a shift."""
    for newest, sign in ((RISEN_RUNS, 1), (FALLEN_RUNS, -1)):
        if tails_shifted(tails, newest, sign) or growth_shifted(steps, newest, sign):
            return newest
    return KEPT_RUNS


def tails_shifted(tails: Sequence[int], newest: int, sign: int) -> bool:
    """Return whether the newest tails are all above (`sign` 1) or all below (-1) the older ones' median."""
    older = tails[:-newest]
    if len(older) < COMPARED_RUNS:
        return False
    middle = median(older)
    return all((tail - middle) * sign > SHIFT_BYTES for tail in tails[-newest:])


def growth_shifted(steps: Sequence[GrowthStep], newest: int, sign: int) -> bool:
    """Return the same for growth, each step compared with older ones of the same octave of a child's life.

    Octaves are the tasks 1, 2 to 3, 4 to 7 and so on: the warm-up of every life is no shift.
    """
    middles: dict[int, float] = {}
    for step in steps[-newest:]:
        octave = (step.tasks_before + 1).bit_length()
        if octave not in middles:
            same_octave = [
                older.growth_bytes
                for older in steps[:-newest]
                if (older.tasks_before + 1).bit_length() == octave
            ]
            if len(same_octave) < COMPARED_RUNS:
                return False
            middles[octave] = median(same_octave)
        if (step.growth_bytes - middles[octave]) * sign <= SHIFT_BYTES:
            return False
    return bool(steps)


def headroom_bytes(model: PoolModel, risk: float = RISK) -> int:
    """Return the next task's headroom: what it may need on top of its child's memory; 0 while nothing is known.

    Peaks over threshold: above the 90 % quantile the excess is taken for exponential. `risk` is that of a whole
    life, in which a growing child is near its budget in about mean excess / growth tasks: the sum of their
    chances is P(tail > headroom) times that number. At least the largest tail, at most a little more.
    """
    if not model.tails:
        return 0
    known = len(model.tails)
    largest = max(model.tails)
    # The next run is the largest of all with a chance of 1 / (known + 1): few runs allow a larger excess.
    most = largest * max(BEYOND_LARGEST, 1 + 1 / known)
    if known < FITTED_RUNS:
        return int(most)
    above = max(2, math.ceil(TAIL_SHARE * known))
    threshold, excess = mean_excess(sorted(model.tails, reverse=True), above)
    growth = fmean(step.growth_bytes for step in model.steps) if model.steps else 0.0
    exposed = min(MOST_EXPOSED, excess / growth) if growth > 0 else MOST_EXPOSED
    fitted = threshold + excess * math.log(max(1.0, above / known * exposed / risk))
    return int(min(most, max(largest, fitted)))


class TaskTracker(Struct, frozen=True):
    """A child between snapshots: its memory when last idle, the peak since, and its last task."""

    tasks_done: int
    idle_bytes: int | None
    peak_bytes: int
    task_name: str | None


def update_trackers(
    tracks: Mapping[Owner, TaskTracker], snapshot: Snapshot
) -> tuple[dict[Owner, TaskTracker], list[TaskRun]]:
    """Return the trackers of the living children after this snapshot, and the runs that ended by it."""
    updated, runs = {}, []
    for child in snapshot.children:
        track, run = update_tracker(tracks.get(child.owner), child)
        updated[child.owner] = track
        # A child that traces allocations also holds the records of them.
        if run is not None and not child.tracing:
            runs.append(run)
    return updated, runs


def update_tracker(track: TaskTracker | None, child: Child) -> tuple[TaskTracker, TaskRun | None]:
    """Return a child's tracker after this snapshot, and its run if one has ended since the last.

    Where several ended, it is the run of the one that was observed running.
    """
    tree = child.tree_bytes
    idle = child.task_id is None
    fresh = TaskTracker(child.tasks_done, tree if idle else None, tree, child.task_name)
    if track is None:
        return fresh, None
    if child.tasks_done == track.tasks_done:
        if idle:
            # Idle children do not grow, except fresh ones: more memory means a task whose report is late.
            seen = tree if track.idle_bytes is None or child.tasks_done == 0 else min(tree, track.idle_bytes)
            return replace(fresh, idle_bytes=seen, task_name=None), None
        name = child.task_name or track.task_name
        return replace(track, peak_bytes=max(track.peak_bytes, tree), task_name=name), None
    if not idle:
        # The next task is running: only the child's own report has what the last one left.
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
