"""What limits each level, which levels may be chosen, and which of them suits best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from recyclery.common.statistics import NORMAL, deviation
from recyclery.common.units import format_bytes
from recyclery.config.settings import Alerts, Memory
from recyclery.decide.max_tasks import choose_max_tasks
from recyclery.decide.memory_model import PoolModel
from recyclery.tune.levels import Measured
from recyclery.tune.spec import Wishes
from recyclery.tune.statistics import SURE, Estimate

LEVELS = Memory()
# Limits are said in steps of this.
STEP_BYTES = 64 << 20


def fits(peak_bytes: float, limit_bytes: int) -> bool:
    """Tell whether a peak leaves the supervisor at rest: above that level pools take no more tasks."""
    return peak_bytes <= limit_bytes * LEVELS.high_percent / 100


def highest_bytes(measured: Measured) -> float:
    """Return how high a level's floor must be expected to go: the highest seen, and what repeats differ by."""
    above = measured.peak_floor_bytes.high if measured.peak_floor_bytes else 0.0
    return max(measured.highest_floor_bytes, above)


def choose_limit(measured: Measured, limit_bytes: int) -> int:
    """Return the least limit below which nothing is let go for its memory; no more than the one given.

    Where something was let go all the same, less was never tried: it is the one given.
    """
    if measured.memory_recycles:
        return limit_bytes
    wanted = highest_bytes(measured) * 100 / LEVELS.retire_percent
    return min(limit_bytes, math.ceil(wanted / STEP_BYTES) * STEP_BYTES)


def choose_tasks(measured: Measured, base_bytes: int, limit_bytes: int, learned: PoolModel) -> int:
    """Return the tasks that each child has room for at this level, no more than were tried."""
    places = measured.level.concurrency
    main = max(0.0, base_bytes - places * (learned.fresh_child_bytes or 0.0))
    budget = (limit_bytes * LEVELS.retire_percent / 100 - main) / places
    return choose_max_tasks(learned, int(budget), measured.level.max_tasks_per_child)


Binding = Literal["memory", "CPU", "elsewhere", "nothing"]

# CPUs busy to this share are full: the rest goes to starts of children, and to looks at the clock.
CPU_FULL = 0.85
# Each place does less than this share of what one did at the least level: they wait for each other.
CROWDED = 0.75


def find_binding(measured: Measured, least: Measured, limit_bytes: int) -> Binding:
    """Return what binds: memory or CPU by their own figures; elsewhere, where neither does and places crowd.

    What is elsewhere, a lock or a service or a limit of somebody's, no figure of the container's can tell.
    Nothing binds where one place more would do as much as those before it.
    """
    if measured.oom_kills or measured.memory_recycles or not fits(measured.highest_floor_bytes, limit_bytes):
        return "memory"
    if measured.cpu_share >= CPU_FULL:
        return "CPU"
    if measured.pace is None or least.pace is None:
        return "nothing"
    each = measured.pace.high / measured.level.concurrency
    return "elsewhere" if each < CROWDED * least.pace.value / least.level.concurrency else "nothing"


SUCCESS_PERCENT = Alerts().success_percent


@dataclass(frozen=True, slots=True)
class Judged:
    """A level, what holds it back, and why it cannot be chosen (empty where it can)."""

    measured: Measured
    binds: Binding
    obstacle: str


def judge_levels(measured: Sequence[Measured], wishes: Wishes, limit_bytes: int) -> tuple[Judged, ...]:
    """Return the levels, judged."""
    least = next((one for one in measured if one.per_second is not None), None)
    return tuple(
        Judged(one, find_binding(one, least or one, limit_bytes), find_obstacle(one, wishes, limit_bytes))
        for one in measured
    )


def find_obstacle(measured: Measured, wishes: Wishes, limit_bytes: int) -> str:
    """Say why a level cannot be chosen; empty where it can."""
    if measured.oom_kills:
        return f"the kernel killed {measured.oom_kills} processes for want of memory"
    if measured.stopped:
        return f"given up: {measured.stopped}"
    if preempted := measured.recycles.get("preempt", 0):
        return f"{preempted} children were killed to make room"
    if not fits(highest_bytes(measured), limit_bytes):
        return (
            f"memory may reach {format_bytes(int(highest_bytes(measured)))}, "
            f"past {LEVELS.high_percent} % of {format_bytes(limit_bytes)}"
        )
    if not measured.is_enough or measured.ran is None:
        return f"{measured.done} tasks are too few to tell"
    if measured.failing_share > 1 - SUCCESS_PERCENT / 100:
        return f"{measured.failing_share:.0%} of the tasks failed{name_worst(measured)}"
    if wishes.slo_seconds is not None and measured.ran.p95.value > wishes.slo_seconds:
        return f"p95 is {measured.ran.p95.value:.3g} s, over {wishes.slo_seconds:g} s"
    return ""


def name_worst(measured: Measured) -> str:
    """Return the end of a sentence that says with what most tasks failed, where that is known."""
    named = next((name for name in measured.failures if name), "")
    return f", most of them with {named}" if named else ""


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
