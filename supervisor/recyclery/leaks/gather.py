"""Makes the report from a history."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from recyclery.decide.limits import choose_max_tasks
from recyclery.decide.model import PoolModel, Step
from recyclery.history.reading import Done, History, Run
from recyclery.leaks.document import LeakReport, PlaceReport, PoolReport, TaskReport
from recyclery.leaks.files import shm_files
from recyclery.leaks.growth import PlaceGrowth, TaskGrowth, is_leak, judge_pool
from recyclery.leaks.notes import write_note

# The newest runs of a pool say how its tasks are now; more would only cost time.
JUDGED_RUNS = 4000
# More tasks than that per child are as good as no number.
MOST_TASKS = 1000
RECYCLES = {"retire", "preempt"}


def gather(history: History, path: Path, since: float, until: float, pattern: str = "") -> LeakReport:
    """Return the report on the runs that ended in between; of tasks whose names hold the pattern."""
    runs = {pool: history.runs(pool, since, until, JUDGED_RUNS) for pool in history.pools()}
    runs = {pool: found for pool, found in runs.items() if found}
    growths = shm_files(
        {pool: judge_pool(found) for pool, found in runs.items()}, runs, history.shm_minutes(since, until)
    )
    known = Known(
        counts=count_runs(history, since, until),
        first_seen={key: first for key, (first, _) in history.totals().items()},
        budgets=history.budgets(),
        actions=history.actions(since, until),
    )
    ends = [run.ended for found in runs.values() for run in found]
    return LeakReport(
        history=str(path),
        since=min(ends, default=0.0),
        until=max(ends, default=0.0),
        pools=[report_pool(pool, found, growths[pool], known, pattern) for pool, found in runs.items()],
    )


def count_runs(history: History, since: float, until: float) -> Mapping[tuple[str, str], int]:
    """Return the runs in between; of all time by the days' sums, where counting each would take long."""
    if since > 0:
        return history.counts(since, until)
    return {key: runs for key, (_, runs) in history.totals().items()}


@dataclass(frozen=True)
class Known:
    """What the history knows besides the runs: by pool and task, or by pool."""

    counts: Mapping[tuple[str, str], int]
    first_seen: Mapping[tuple[str, str], float]
    budgets: Mapping[str, tuple[int, int | None]]
    actions: Sequence[Done]


def report_pool(
    pool: str, runs: Sequence[Run], growths: Sequence[TaskGrowth], known: Known, pattern: str
) -> PoolReport:
    """Return one pool's tasks, leaks first."""
    blamed = blame([action for action in known.actions if action.pool == pool], runs, growths)
    budget, most = known.budgets.get(pool, (None, None))
    whole = sum(growth.left_bytes for growth in growths)
    tasks = []
    for growth in growths:
        if growth.task and pattern in growth.task:
            task = report_task(pool, growth, known, blamed.get(growth.task, Counter()))
            alone = suggest_alone(growth, runs, budget) if is_leak(growth.shape) else None
            share = round(growth.left_bytes / whole, 4) if whole else 0.0
            tasks.append(replace(task, share_of_growth=share, suggested_max_tasks_per_child=alone))
    return PoolReport(
        pool=pool,
        runs=max(len(runs), sum(count for (name, _), count in known.counts.items() if name == pool)),
        budget_bytes=budget,
        max_tasks_per_child=most,
        suggested_max_tasks_per_child=suggest_for_mix(runs, budget),
        tasks=sorted(tasks, key=lambda task: (is_leak(task.shape), task.bytes_per_run), reverse=True),
    )


def report_task(pool: str, growth: TaskGrowth, known: Known, blamed: Counter[str]) -> TaskReport:
    """Return one task's row, without its share and number."""
    mean, away = growth.mean_bytes, growth.away_bytes
    left = blamed["reap leftovers"]
    return TaskReport(
        pool=pool,
        task=growth.task,
        shape=growth.shape,
        place=growth.place,
        runs=max(known.counts.get((pool, growth.task), 0), growth.seen),
        judged_runs=growth.runs,
        children=growth.children,
        bytes_per_run=round(mean),
        low_bytes=finite(mean - away),
        high_bytes=finite(mean + away),
        places={name: report_place(found) for name, found in growth.places.items()},
        first_seen=known.first_seen.get((pool, growth.task), growth.first_ended),
        recycles=sum(blamed[kind] for kind in RECYCLES),
        oom_kills=blamed["oom"],
        browsers_left=left,
        note=write_note(growth, left),
    )


def report_place(growth: PlaceGrowth) -> PlaceReport:
    """Return one place's figures in whole bytes."""
    return PlaceReport(
        round(growth.mean_bytes), finite(growth.low_bytes), finite(growth.high_bytes), growth.shape
    )


def finite(value: float) -> float | None:
    """Return a whole number; None where nothing bounds it, which JSON cannot say."""
    return round(value) if math.isfinite(value) else None


def blame(
    actions: Iterable[Done], runs: Sequence[Run], growths: Sequence[TaskGrowth]
) -> dict[str, Counter[str]]:
    """Return how often each task was at the bottom of an action.

    What was reaped or preempted, and an OOM kill, is the doing of the task at work. A child that was retired
    had grown over its life: by the task of which it ran most, weighed by what a run leaves.
    """
    left = {growth.task: max(0.0, growth.mean_bytes) for growth in growths}
    held: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for run in runs:
        for task, count in run.tasks.items():
            held[run.child][task] += count * left.get(task, 0.0)
    blamed: dict[str, Counter[str]] = defaultdict(Counter)
    for action in actions:
        grown = held.get(action.child, {}) if action.child is not None else {}
        if action.kind == "retire" and action.done and any(grown.values()):
            blamed[max(grown, key=lambda task: grown[task])]["retire"] += 1
        elif action.task and action.kind != "retire" and action.done:
            blamed[action.task][action.kind] += 1
    return blamed


def suggest_alone(growth: TaskGrowth, runs: Sequence[Run], budget: int | None) -> int | None:
    """Return how many runs of one task alone a child has room for."""
    measured = [run for run in runs if growth.task in run.tasks and len(run.tasks) == 1]
    measured = [run for run in measured if run.before is not None and run.after is not None]
    fresh = [run.before.total for run in runs if run.place == 0 and run.before is not None]
    if budget is None or not measured:
        return None
    start = sorted(fresh)[len(fresh) // 2] if fresh else min(run.before.total for run in measured if run.before)
    steps, tails = [], []
    for place, run in enumerate(measured):
        assert run.before is not None and run.after is not None  # noqa: S101, PT018  # as filtered above
        # As if it had run alone, in one life.
        before = start + round(place * growth.mean_bytes)
        steps.append(Step(place, before, before + run.after.total - run.before.total))
        tails.append(max(0, run.peak.total - run.before.total))
    return numbered(choose_max_tasks(PoolModel(start, tuple(tails), tuple(steps)), budget, MOST_TASKS))


def suggest_for_mix(runs: Sequence[Run], budget: int | None) -> int | None:
    """Return how many of the pool's tasks, as they come, a child has room for."""
    seen = [run for run in runs if run.before is not None and run.after is not None]
    if budget is None or not seen:
        return None
    steps = tuple(
        Step(run.place, run.before.total, run.after.total)
        for run in seen
        if run.before is not None and run.after is not None and sum(run.tasks.values()) == 1
    )
    tails = tuple(max(0, run.peak.total - run.before.total) for run in seen if run.before is not None)
    fresh = tuple(step.before_bytes for step in steps if step.tasks_before == 0)
    return numbered(choose_max_tasks(PoolModel(None, tails, steps, fresh), budget, MOST_TASKS))


def numbered(tasks: int) -> int | None:
    """Return a number of tasks; None where it is as good as none."""
    return tasks if tasks < MOST_TASKS else None
