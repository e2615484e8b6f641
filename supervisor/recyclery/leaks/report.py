"""The leak report from the history: each task's growth, its causes, and what to do about it.

Its values are what `--json` prints, and what the table and the page are made from.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median_high

import msgspec

from recyclery.common.statistics import t_quantile
from recyclery.decide.max_tasks import MIN_LEAK_BYTES, choose_max_tasks
from recyclery.decide.memory_model import GrowthStep, PoolModel
from recyclery.history.reader import HistoryReader, StoredAction, StoredRun
from recyclery.leaks.growth import (
    JUDGED_LIFE,
    JUDGED_STEPS,
    PLATEAU_BYTES,
    SURE,
    PlaceGrowth,
    Shape,
    TaskGrowth,
    classify_growth,
    is_leak,
)
from recyclery.leaks.regression import Difference, fit_kinds

# The newest runs of a pool show how its tasks behave now; more would only cost time.
JUDGED_RUNS = 4000
# A larger max_tasks_per_child is as good as none.
MOST_TASKS = 1000
RECYCLES = {"retire", "preempt"}
# Smaller growth of /dev/shm over the whole time is not investigated.
LEAST_SHM_GROWTH_BYTES = 8 << 20
# Minutes needed to tell apart tasks that alternate.
LEAST_MINUTES = 10
# A task that has left a browser so often forgets to quit it; one may be left by a kill, or as a worker stops.
CERTAIN_BROWSERS_LEFT = 3
# One that leaves two in this many runs does so too.
RUNS_PER_LEFT_BROWSER = 50
PLACE_NAMES = {
    "python": "Python",
    "browser": "the browser",
    "shared": "shared memory",
    "other": "other programs",
    "files": "files in /dev/shm",
}

RunsByPool = Mapping[str, Sequence[StoredRun]]


class PlaceReport(msgspec.Struct, frozen=True):
    """What a run leaves in one place, with its 95 % interval, which is None if there are too few runs."""

    bytes_per_run: float
    low_bytes: float | None
    high_bytes: float | None
    shape: Shape


class TaskReport(msgspec.Struct, frozen=True, kw_only=True):
    """One task of one pool."""

    pool: str
    task: str
    shape: Shape
    place: str
    runs: int
    judged_runs: int
    """How many of the newest runs were measured."""
    children: int
    bytes_per_run: float
    low_bytes: float | None
    high_bytes: float | None
    share_of_growth: float = 0.0
    """Share of what all of the pool's tasks left."""
    places: dict[str, PlaceReport]
    first_seen: float
    suggested_max_tasks_per_child: int | None = None
    """How many runs of this task alone fit in a child's budget; None if no limit is needed or known."""
    recycles: int
    oom_kills: int
    browsers_left: int
    """How often it left a browser that was then killed."""
    note: str
    """Advice, in a sentence."""


class PoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """One pool: its tasks, leaks first, and the max_tasks_per_child that suits their mix."""

    pool: str
    runs: int
    budget_bytes: int | None
    max_tasks_per_child: int | None
    suggested_max_tasks_per_child: int | None
    tasks: list[TaskReport]


class LeakReport(msgspec.Struct, frozen=True, kw_only=True):
    """All pools, from the end of the first run to that of the last. Times are seconds since 1970."""

    history: str
    since: float
    until: float
    pools: list[PoolReport]

    @property
    def tasks(self) -> list[TaskReport]:
        """All tasks of all pools."""
        return [task for pool in self.pools for task in pool.tasks]


@dataclass(frozen=True)
class Facts:
    """What the history has besides the runs: by pool and task, or by pool."""

    counts: Mapping[tuple[str, str], int]
    first_seen: Mapping[tuple[str, str], float]
    budgets: Mapping[str, tuple[int, int | None]]
    actions: Sequence[StoredAction]


def build_leak_report(
    history: HistoryReader, path: Path, since: float, until: float, pattern: str = ""
) -> LeakReport:
    """Return the report on the runs that ended in this time, of tasks whose names contain the pattern."""
    runs = {pool: history.runs(pool, since, until, JUDGED_RUNS) for pool in history.pools()}
    runs = {pool: found for pool, found in runs.items() if found}
    growths = shm_files(
        {pool: classify_growth(found) for pool, found in runs.items()}, runs, history.shm_minutes(since, until)
    )
    totals = history.totals()
    # Counting every run takes long, so the sums by day serve for all of the time.
    counts = history.counts(since, until) if since > 0 else {key: count for key, (_, count) in totals.items()}
    first_seen = {key: first for key, (first, _) in totals.items()}
    facts = Facts(counts, first_seen, history.budgets(), history.actions(since, until))
    ends = [run.ended for found in runs.values() for run in found]
    return LeakReport(
        history=str(path),
        since=min(ends, default=0.0),
        until=max(ends, default=0.0),
        pools=[report_pool(pool, found, growths[pool], facts, pattern) for pool, found in runs.items()],
    )


def report_pool(
    pool: str, runs: Sequence[StoredRun], growths: Sequence[TaskGrowth], facts: Facts, pattern: str
) -> PoolReport:
    """Return one pool's tasks, leaks first."""
    causes = count_causes([action for action in facts.actions if action.pool == pool], runs, growths)
    budget, max_tasks = facts.budgets.get(pool, (None, None))
    pool_left = sum(growth.left_bytes for growth in growths)
    tasks = []
    for growth in growths:
        task, why = growth.task, causes[growth.task]
        if not task or pattern not in task:
            continue
        mean, margin = growth.mean_bytes, growth.margin_bytes
        report = TaskReport(
            pool=pool,
            task=task,
            shape=growth.shape,
            place=growth.place,
            runs=max(facts.counts.get((pool, task), 0), growth.seen),
            judged_runs=growth.runs,
            children=growth.children,
            bytes_per_run=round(mean),
            low_bytes=finite(mean - margin),
            high_bytes=finite(mean + margin),
            share_of_growth=round(growth.left_bytes / pool_left, 4) if pool_left else 0.0,
            places={
                name: PlaceReport(round(at.mean_bytes), finite(at.low_bytes), finite(at.high_bytes), at.shape)
                for name, at in growth.places.items()
            },
            first_seen=facts.first_seen.get((pool, task), growth.first_ended),
            suggested_max_tasks_per_child=suggest_for_task(growth, runs, budget),
            recycles=sum(why[kind] for kind in RECYCLES),
            oom_kills=why["oom"],
            browsers_left=why["reap leftovers"],
            note=write_advice(growth, why["reap leftovers"]),
        )
        tasks.append(report)
    return PoolReport(
        pool=pool,
        runs=max(len(runs), sum(count for (name, _), count in facts.counts.items() if name == pool)),
        budget_bytes=budget,
        max_tasks_per_child=max_tasks,
        suggested_max_tasks_per_child=suggest_for_mix(runs, budget),
        tasks=sorted(
            tasks,
            key=lambda task: (
                is_leak(task.shape) or forgets_browsers(task.browsers_left, task.runs),
                task.bytes_per_run,
            ),
            reverse=True,
        ),
    )


def finite(value: float) -> int | None:
    """Return a whole number; None for infinity, which JSON does not have."""
    return round(value) if math.isfinite(value) else None


def count_causes(
    actions: Iterable[StoredAction], runs: Sequence[StoredRun], growths: Sequence[TaskGrowth]
) -> defaultdict[str, Counter[str]]:
    """Return how often each task caused an action, by kind.

    Preemption and OOM kills are caused by the running task, a reap by the one that left what is reaped, where
    that is known. A child is retired because it grew over its life: this counts for the task that left most in
    it, by its number of runs and its growth per run.
    """
    bytes_per_run = {growth.task: max(0.0, growth.mean_bytes) for growth in growths}
    left: dict[int | None, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for run in runs:
        for task, count in run.tasks.items():
            left[run.child][task] += count * bytes_per_run.get(task, 0.0)
    causes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for action in filter(lambda action: action.done, actions):
        grown = left[action.child]
        if action.kind == "retire" and any(grown.values()):
            causes[max(grown, key=lambda task: grown[task])]["retire"] += 1
        elif action.kind != "retire" and action.task:
            causes[action.task][action.kind] += 1
    return causes


def shm_files(
    growths: Mapping[str, list[TaskGrowth]], runs: RunsByPool, minutes: Sequence[tuple[int, int]]
) -> dict[str, list[TaskGrowth]]:
    """Add the place "files" to tasks that leave files in /dev/shm, found by regression over minutes.

    These files are open in no process, so only the time at which they appear shows which task left them.
    """
    pools = {pool: list(found) for pool, found in growths.items()}
    first_minute = min((run.ended for found in runs.values() for run in found), default=0.0) // 60
    minutes = [(minute, size) for minute, size in minutes if minute >= first_minute]
    if len(minutes) < LEAST_MINUTES or minutes[-1][1] - minutes[0][1] < LEAST_SHM_GROWTH_BYTES:
        return pools
    keys = [(pool, growth.task) for pool, found in pools.items() for growth in found]
    kinds = {key: number for number, key in enumerate(keys)}
    differences = shm_differences(runs, kinds, minutes)
    fit = fit_kinds(differences, len(kinds))
    quantile = t_quantile(SURE, max(3, len(differences) - len(kinds)))
    for pool, tasks in pools.items():
        for number, growth in enumerate(tasks):
            mean, error = fit.combine({kinds[pool, growth.task]: 1.0})
            left = PlaceGrowth(mean, mean - quantile * error, mean + quantile * error, "leak")
            if left.low_bytes > MIN_LEAK_BYTES and not is_leak(growth.places["shared"].shape):
                tasks[number] = replace(growth, places={**growth.places, "files": left})
    return pools


def shm_differences(
    runs: RunsByPool, kinds: Mapping[tuple[str, str], int], minutes: Sequence[tuple[int, int]]
) -> list[Difference]:
    """Return how much the files grew between minutes, with the runs that ended meanwhile."""
    ended: dict[int, Counter[int]] = defaultdict(Counter)
    for pool, found in runs.items():
        for run in found:
            for task, count in run.tasks.items():
                if (pool, task) in kinds:
                    ended[int(run.ended // 60)][kinds[pool, task]] += count
    differences = []
    for (begin, before), (end, after) in pairwise(minutes):
        mix = sum((ended[minute] for minute in range(begin + 1, end + 1)), Counter())
        if mix:
            differences.append(Difference(mix, after - before, joined=False))
    return differences


def write_advice(growth: TaskGrowth, browsers_left: int) -> str:
    """Return what the figures mean, and what is still uncertain."""
    place = PLACE_NAMES[growth.place]
    match growth.shape:
        case "leak" if growth.place == "files":
            advice = "every run leaves files in /dev/shm, and no recycle removes them"
        case "leak":
            advice = f"every run leaves about as much in {place}, for as long as a child lives"
        case "step":
            advice = f"few runs leave most of it in {place}, and at once: look for what they have in common"
        case "plateau":
            advice = "grows while a child is young, and then no more: a cache, no leak"
        case "none":
            advice = "leaves nothing"
        case _:
            advice = explain_undecided(growth)
    if not forgets_browsers(browsers_left, growth.runs):
        return advice
    left = f"it left a browser running {browsers_left} times, which was killed: quit it in a `finally`"
    left += f" ({browsers_left} of {growth.seen} runs)"
    return left if growth.shape == "none" else f"{advice}; {left}"


def forgets_browsers(browsers_left: int, runs: int) -> bool:
    """Return whether a task that left so many browsers in so many runs does not quit them."""
    is_often = browsers_left > 1 and browsers_left * RUNS_PER_LEFT_BROWSER > runs
    return is_often or browsers_left >= CERTAIN_BROWSERS_LEFT


def explain_undecided(growth: TaskGrowth) -> str:
    """Return why the shape is undecided, and what would help."""
    if growth.runs < JUDGED_STEPS:
        return f"{growth.runs} runs are too few to tell: wait for {JUDGED_STEPS}"
    if growth.life < JUDGED_LIFE:
        return (
            f"children run it {growth.life} times in their life, too few to tell a leak from a warm-up: "
            f"raise max_tasks_per_child until it is {JUDGED_LIFE}"
        )
    if growth.mean_bytes - growth.margin_bytes > PLATEAU_BYTES:
        return (
            "grows, but less and less: a cache that fills slowly, or a leak behind one; longer lives would tell"
        )
    return "readings vary more than it grows: more runs will tell"


def measured(runs: Iterable[StoredRun]) -> Iterator[tuple[StoredRun, GrowthStep, int]]:
    """Yield the runs with known idle memory before and after, with both, and their peak above the former."""
    for run in runs:
        if run.before is not None and run.after is not None:
            before_bytes = run.before.total
            step = GrowthStep(run.place, before_bytes, run.after.total)
            yield run, step, max(0, run.peak.total - before_bytes)


def suggest_for_task(growth: TaskGrowth, runs: Sequence[StoredRun], budget: int | None) -> int | None:
    """Return how many runs of this task alone fit in a child's budget; None if it does not leak."""
    if budget is None or not is_leak(growth.shape):
        return None
    own = list(measured(run for run in runs if run.tasks.keys() == {growth.task}))
    if not own:
        return None
    fresh = [run.before.total for run in runs if run.place == 0 and run.before is not None]
    start = median_high(fresh) if fresh else min(step.before_bytes for _, step, _ in own)
    steps = []
    for number, (_, step, _) in enumerate(own):
        # As if one child had run them all.
        begin = start + round(number * growth.mean_bytes)
        steps.append(GrowthStep(number, begin, begin + step.growth_bytes))
    return suggest(PoolModel(start, tuple(tail for _, _, tail in own), tuple(steps)), budget)


def suggest_for_mix(runs: Sequence[StoredRun], budget: int | None) -> int | None:
    """Return how many of the pool's tasks, in their present mix, fit in a child's budget."""
    found = list(measured(runs))
    if budget is None or not found:
        return None
    steps = tuple(step for run, step, _ in found if sum(run.tasks.values()) == 1)
    fresh = tuple(step.before_bytes for step in steps if step.tasks_before == 0)
    return suggest(PoolModel(None, tuple(tail for _, _, tail in found), steps, fresh), budget)


def suggest(model: PoolModel, budget: int) -> int | None:
    """Return the max_tasks_per_child of a model; None if it needs no limit."""
    tasks = choose_max_tasks(model, budget, MOST_TASKS)
    return tasks if tasks < MOST_TASKS else None
