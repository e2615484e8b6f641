"""Whose files grow in /dev/shm: they belong to no process, so time alone tells whose tasks left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from recyclery.common.statistics import t_quantile
from recyclery.decide.limits import LEAST_LEAK_BYTES
from recyclery.history.reading import Run
from recyclery.leaks.growth import SURE, PlaceGrowth, TaskGrowth, is_leak
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
