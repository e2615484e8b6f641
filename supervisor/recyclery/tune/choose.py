"""Which of the measured levels: the smallest that does as much as the best of those that may be chosen."""

from __future__ import annotations

import math
from collections.abc import Sequence

from recyclery.tune.estimates import Estimate
from recyclery.tune.measured import Measured
from recyclery.tune.memory import highest_bytes
from recyclery.tune.wishes import Wishes

# Less is no difference worth a place more.
SAME_SHARE = 0.05


def choose_level(candidates: Sequence[Measured], wishes: Wishes) -> Measured | None:
    """Return the level that suits best; None of none."""
    if wishes.objective == "latency":
        candidates = quickest(candidates)
    near = near_best(candidates)
    if not near:
        return None
    least = min(one.level.concurrency for one in near)
    return choose_tasks_per_child([one for one in near if one.level.concurrency == least])


def near_best(candidates: Sequence[Measured]) -> list[Measured]:
    """Return the levels whose throughput cannot be told from the best one's, or is hardly less."""
    speeds = {one.level: one.per_second for one in candidates if one.per_second is not None}
    if not speeds:
        return []
    best = max(speeds.values(), key=lambda speed: speed.value)
    return [one for one in candidates if one.level in speeds and is_same(speeds[one.level], best)]


def quickest(candidates: Sequence[Measured]) -> list[Measured]:
    """Return the levels whose tasks take no longer than where they are done soonest."""
    times = {one.level: one.ran.p95 for one in candidates if one.ran is not None}
    if not times:
        return []
    best = min(times.values(), key=lambda time: time.value)
    return [one for one in candidates if one.level in times and is_same(times[one.level], best)]


def is_same(one: Estimate, other: Estimate) -> bool:
    """Tell whether two figures differ by less than their noise, or than is worth anything."""
    # The upper bound of a quantile may be none; the lower one always is.
    doubt = math.hypot(*(math.log(figure.value / figure.low) for figure in (one, other)))
    return abs(math.log(one.value / other.value)) <= max(doubt, -math.log(1 - SAME_SHARE))


def choose_tasks_per_child(same: Sequence[Measured]) -> Measured:
    """Return the level with the fewest restarts of those that hold the least memory."""
    lowest = min(highest_bytes(one) for one in same)
    light = [one for one in same if highest_bytes(one) <= lowest * (1 + SAME_SHARE)]
    return max(light, key=lambda one: one.level.max_tasks_per_child)
