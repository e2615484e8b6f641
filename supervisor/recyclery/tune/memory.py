"""How high memory goes with concurrency and tasks per child, and what fits a limit.

    peak = main + K (child + growth N)        with none of the three below 0

fitted to the peak floors of the levels whose memory nobody held down. What a task leaves, and what the next one
may need, the supervisor has learned meanwhile: from that comes how many tasks a child has room for.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from recyclery.config.settings import Memory
from recyclery.decide.max_tasks import choose_max_tasks
from recyclery.decide.memory_model import PoolModel
from recyclery.tune.estimates import Estimate
from recyclery.tune.fitting import MOST_LEFT_OUT_ERROR, Fit, Point, Refused, Terms, fit_points
from recyclery.tune.measured import MEMORY_RECYCLES, Measured, floor_spread, whole_windows
from recyclery.tune.windows import Level, Window

LEVELS = Memory()
# With three unknowns at most, so many levels of concurrency leave one that can contradict.
LEAST_LEVELS = 3
# Limits are said in steps of this.
STEP_BYTES = 64 << 20


@dataclass(frozen=True)
class Peaks:
    """The peak floor as fitted."""

    fit: Fit

    @property
    def main_bytes(self) -> float:
        """What is held whatever runs."""
        return self.fit.coefficients[0]

    @property
    def child_bytes(self) -> float:
        """What one place more holds at its peak, without what its tasks leave."""
        return self.fit.coefficients[1]

    @property
    def growth_bytes(self) -> float:
        """What each further task of a child leaves."""
        return self.fit.coefficients[2]

    def at(self, level: Level) -> Estimate:
        """Return the peak floor at a level."""
        return self.fit.estimate(level)


def fit_peaks(windows: Sequence[Window]) -> Peaks | Refused:
    """Return the model, or why there is none."""
    free = [window for window in whole_windows(windows) if not is_held_down(window)]
    groups: dict[Level, list[float]] = defaultdict(list)
    for window in free:
        groups[window.level].append(window.peak_floor_bytes)
    share = floor_spread(free).share
    points = [
        Point(level, fmean(peaks), share / math.sqrt(len(peaks))) for level, peaks in sorted(groups.items())
    ]
    levels = {point.level.concurrency for point in points}
    if len(levels) < LEAST_LEVELS:
        return Refused(
            f"{len(levels)} levels of concurrency ran with no child let go for its memory, "
            f"a law of memory wants {LEAST_LEVELS} or more"
        )
    grown = len({point.level.max_tasks_per_child for point in points}) > 1

    def columns(level: Level) -> tuple[float, ...]:
        places = float(level.concurrency)
        return 1.0, places, places * level.max_tasks_per_child if grown else 0.0

    fit = fit_points(points, Terms(columns))
    if fit.left_out_error > MOST_LEFT_OUT_ERROR:
        return Refused(f"a law of memory fitted without a level misses it by {fit.left_out_error:.0%}")
    return Peaks(fit)


def is_held_down(window: Window) -> bool:
    """Tell whether the supervisor kept memory lower than the tasks would have."""
    return window.oom_kills > 0 or any(count and reason in MEMORY_RECYCLES for reason, count in window.recycles)


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
