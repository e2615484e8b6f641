"""Which of the measured levels: the smallest that does as much as the best of those that may be chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from recyclery.common.statistics import NORMAL, deviation
from recyclery.tune.estimates import SURE, Estimate
from recyclery.tune.measured import Measured
from recyclery.tune.memory import highest_bytes
from recyclery.tune.wishes import Wishes

# Less is no difference worth a place more.
SAME_SHARE = 0.05
SAME = -math.log(1 - SAME_SHARE)
# Bounds are those of a pair: of many levels, looked at after each round, one is easily off by more.
OF_MANY = 1.5


def choose_level(candidates: Sequence[Measured], wishes: Wishes) -> Measured | None:
    """Return the level that suits best; None of none."""
    if wishes.objective == "latency":
        candidates = quickest(candidates)
    likely = likely_best(near_best(candidates, OF_MANY))
    if not likely:
        return None
    least = min(one.level.concurrency for one in likely)
    return choose_tasks_per_child([one for one in likely if one.level.concurrency == least])


def near_best(candidates: Sequence[Measured], margin: float = 1.0) -> list[Measured]:
    """Return the levels whose throughput cannot be told from the best one's, or is hardly less."""
    speeds = {one.level: one.pace for one in candidates if one.pace is not None}
    if not speeds:
        return []
    best = max(speeds.values(), key=lambda speed: speed.value)
    return [one for one in candidates if one.level in speeds and is_same(speeds[one.level], best, margin)]


def likely_best(near: Sequence[Measured]) -> list[Measured]:
    """Return those of the levels near the best one that likely do as much.

    The best of many has had luck. So what they differ by is taken for real only as far as it is more than noise
    makes of equal ones (empirical Bayes: Efron and Morris, 1973).
    """
    paces = [one.pace for one in near if one.pace is not None]
    if len(paces) < 2:
        return list(near)
    logs = [math.log(pace.value) for pace in paces]
    seen = deviation(logs, fmean(logs)) ** 2
    noise = fmean((math.log(pace.value / pace.low) / NORMAL.inv_cdf(SURE)) ** 2 for pace in paces)
    real_share = max(0.0, 1 - noise / seen) if seen else 0.0
    most = max(logs)
    return [one for one, log in zip(near, logs, strict=True) if (most - log) * real_share <= SAME]


def quickest(candidates: Sequence[Measured]) -> list[Measured]:
    """Return the levels whose tasks take no longer than where they are done soonest."""
    times = {one.level: one.ran.p95 for one in candidates if one.ran is not None}
    if not times:
        return []
    best = min(times.values(), key=lambda time: time.value)
    return [one for one in candidates if one.level in times and is_same(times[one.level], best)]


def is_same(one: Estimate, other: Estimate, margin: float = 1.0) -> bool:
    """Tell whether two figures differ by less than their noise, or than is worth anything."""
    return abs(math.log(one.value / other.value)) <= max(margin * doubt(one, other), SAME)


def doubt(one: Estimate, other: Estimate) -> float:
    """Return how much noise may make of the ratio of two figures, as the logarithm of a ratio."""
    # The upper bound of a quantile may be none; the lower one always is.
    return math.hypot(*(math.log(figure.value / figure.low) for figure in (one, other)))


def choose_tasks_per_child(same: Sequence[Measured]) -> Measured:
    """Return the level with the fewest restarts of those that hold the least memory."""
    lowest = min(highest_bytes(one) for one in same)
    light = [one for one in same if highest_bytes(one) <= lowest * (1 + SAME_SHARE)]
    return max(light, key=lambda one: one.level.max_tasks_per_child)
