"""Whose files grow in /dev/shm: they belong to no process, so time alone tells whose tasks left them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from msgspec import structs

from recyclery.common.statistics import t_quantile
from recyclery.decide.max_tasks import LEAST_LEAK_BYTES, choose_max_tasks
from recyclery.decide.memory_model import PoolModel, Step
from recyclery.history.reader import Done, History, Run
from recyclery.leaks.document import LeakReport, PlaceReport, PoolReport, TaskReport
from recyclery.leaks.growth import (
    JUDGED_LIFE,
    JUDGED_STEPS,
    PLATEAU_BYTES,
    SURE,
    PlaceGrowth,
    TaskGrowth,
    is_leak,
    judge_pool,
)
from recyclery.leaks.regression import Difference, fit_kinds

# Less than this, over all the time, is nobody's leak.
LEAST_GROWTH_BYTES = 8 << 20
# So many minutes tell tasks apart that run in turns.
LEAST_MINUTES = 10


def shm_files(
    growths: Mapping[str, list[TaskGrowth]],
    runs: Mapping[str, Sequence[Run]],
    minutes: Sequence[tuple[int, int]],
) -> dict[str, list[TaskGrowth]]:
    """Return the growths with a place more where files in /dev/shm grow: by regression over minutes.

    What a task has mapped while it runs is counted with its child; these are files that nobody has open.
    """
    pools = {pool: list(found) for pool, found in growths.items()}
    begun = min((run.ended for found in runs.values() for run in found), default=0.0) // 60
    minutes = [(minute, size) for minute, size in minutes if minute >= begun]
    if len(minutes) < LEAST_MINUTES or minutes[-1][1] - minutes[0][1] < LEAST_GROWTH_BYTES:
        return pools
    kinds = {
        (pool, growth.task): number
        for number, (pool, growth) in enumerate((p, g) for p, found in pools.items() for g in found)
    }
    counted = count_by_minute(runs, kinds)
    differences = []
    for (begin, before), (end, after) in pairwise(minutes):
        mix: dict[int, int] = {}
        for minute in range(begin + 1, end + 1):
            for kind, count in counted.get(minute, {}).items():
                mix[kind] = mix.get(kind, 0) + count
        if mix:
            differences.append(Difference(mix, after - before, joined=False))
    fit = fit_kinds(differences, len(kinds))
    away = t_quantile(SURE, max(3, len(differences) - len(kinds)))
    for pool, found in pools.items():
        for place, growth in enumerate(found):
            weights = [float(number == kinds[pool, growth.task]) for number in range(len(kinds))]
            mean, spread = fit.combine(weights)
            low, high = mean - away * spread, mean + away * spread
            if low > LEAST_LEAK_BYTES and not is_leak(growth.places["shared"].shape):
                left = PlaceGrowth(mean, low, high, "leak")
                found[place] = replace(growth, places={**growth.places, "files": left})
    return pools


def count_by_minute(
    runs: Mapping[str, Sequence[Run]], kinds: Mapping[tuple[str, str], int]
) -> dict[int, dict[int, int]]:
    """Return how many runs of each kind ended in each minute since 1970."""
    counted: dict[int, dict[int, int]] = {}
    for pool, found in runs.items():
        for run in found:
            minute = counted.setdefault(int(run.ended // 60), {})
            for task, count in run.tasks.items():
                kind = kinds.get((pool, task))
                if kind is not None:
                    minute[kind] = minute.get(kind, 0) + count
    return counted


# Once in so many runs is a habit.
HABIT = 50
PLACE_NAMES = {
    "python": "Python",
    "browser": "the browser",
    "shared": "shared memory",
    "other": "other programs",
    "files": "files in /dev/shm",
}


def write_note(growth: TaskGrowth, browsers_left: int) -> str:
    """Say what the figures mean, and what they cannot tell yet."""
    said = [shape_note(growth)]
    if forgets_browsers(growth.runs, browsers_left):
        said.append(
            f"it left a browser running {browsers_left} times, which was killed: quit it in a `finally`"
        )
    return "; ".join(said)


def forgets_browsers(runs: int, browsers_left: int) -> bool:
    """Tell whether browsers left running are a habit; one may be left by a kill, or as a worker stops."""
    return browsers_left > 1 and browsers_left * HABIT > runs


def shape_note(growth: TaskGrowth) -> str:
    """Say what its shape means."""
    place = PLACE_NAMES[growth.place]
    match growth.shape:
        case "leak" if growth.place == "files":
            return "every run leaves files in /dev/shm, and no recycle removes them"
        case "leak":
            return f"every run leaves about as much in {place}, for as long as a child lives"
        case "step":
            return f"few runs leave most of it in {place}, and at once: look for what they have in common"
        case "plateau":
            return "grows while a child is young, and then no more: a cache, no leak"
        case "none":
            return "leaves nothing"
        case _:
            return doubt_note(growth)


def doubt_note(growth: TaskGrowth) -> str:
    """Say why it is not decided."""
    if growth.runs < JUDGED_STEPS:
        return f"{growth.runs} runs are too few to tell: wait for {JUDGED_STEPS}"
    if growth.life < JUDGED_LIFE:
        return (
            f"children run it {growth.life} times in their life, too few to tell a leak from a warm-up: "
            f"raise max_tasks_per_child until it is {JUDGED_LIFE}"
        )
    if growth.mean_bytes - growth.away_bytes > PLATEAU_BYTES:
        return (
            "grows, but less and less: a cache that fills slowly, or a leak behind one; longer lives would tell"
        )
    return "readings vary more than it grows: more runs will tell"


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
            tasks.append(structs.replace(task, share_of_growth=share, suggested_max_tasks_per_child=alone))
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
