"""How throughput grows with concurrency: Gunther's universal scalability law, below the ceiling of the CPUs.

    X(K) = K / (a + b (K - 1) + c K (K - 1))        with  a, b, c >= 0

is the law with speed 1/a, contention b/a and coherence c/a, written as what a task takes when K run: so it is
linear, and its best fit exact. What tasks wait for a CPU is added to it, for that starts at a knee and the law
has none; it is not fitted but known (`cpu_share`). Where levels differ in tasks per child, a child's start is a
term too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from recyclery.tune.cpu_share import CpuShare, fit_away
from recyclery.tune.fitting import MOST_LEFT_OUT_ERROR, Fit, Point, Refused, Terms, fit_points
from recyclery.tune.levels import speed_error, speed_spread, whole_windows
from recyclery.tune.rounds import compare_rounds
from recyclery.tune.statistics import Estimate
from recyclery.tune.windows import Level, Window

# Fewer levels fit nearly any law; without so many, nothing is said of coherence, which bends only far up.
LEAST_LEVELS = 4
COHERENCE_LEVELS = 6


@dataclass(frozen=True)
class Throughput:
    """The law as fitted."""

    fit: Fit
    ceiling_per_second: float
    """What the CPUs can do at most: infinite where tasks use none."""

    @property
    def alone_per_second(self) -> float:
        """What one place does when nothing else runs."""
        return 1 / self.fit.coefficients[0] if self.fit.coefficients[0] else math.inf

    @property
    def contention(self) -> float:
        """The law's sigma: the share of a task for which it waits for all others."""
        return self.fit.coefficients[1] * self.alone_per_second

    @property
    def coherence(self) -> float:
        """The law's kappa: what each pair of tasks costs."""
        return self.fit.coefficients[2] * self.alone_per_second

    def at(self, level: Level) -> Estimate:
        """Return the tasks per second at a level."""
        seconds = self.fit.estimate(level)
        return Estimate(*(self._speed(level, value) for value in (seconds.value, seconds.high, seconds.low)))

    def _speed(self, level: Level, seconds: float) -> float:
        return min(self.ceiling_per_second, level.concurrency / seconds) if seconds > 0 else math.inf


def fit_throughput(windows: Sequence[Window]) -> Throughput | Refused:
    """Return the law, or why there is none."""
    points = seconds_per_task(windows)
    levels = {point.level.concurrency for point in points}
    if len(levels) < LEAST_LEVELS:
        return Refused(
            f"{len(levels)} levels of concurrency were measured, a law of scaling wants {LEAST_LEVELS} or more"
        )
    share = share_cpus(windows, min(points))
    fit = fit_points(points, choose_terms(points, share))
    if fit.left_out_error > MOST_LEFT_OUT_ERROR:
        return Refused(
            f"a law fitted without a level misses it by {fit.left_out_error:.0%}: "
            "more repeats would tell noise from a law that does not hold here"
        )
    return Throughput(fit, share.ceiling_per_second if share else math.inf)


def seconds_per_task(windows: Sequence[Window]) -> list[Point]:
    """Return for each level the seconds that each place spent on a task."""
    spread, paces = speed_spread(windows), compare_rounds(whole_windows(windows))
    groups: dict[Level, list[Window]] = defaultdict(list)
    for window in whole_windows(windows):
        groups[window.level].append(window)
    return [
        Point(level, level.concurrency / speed, speed_error(groups[level], spread))
        for level, speed in sorted(paces.per_second.items())
    ]


def share_cpus(windows: Sequence[Window], least: Point) -> CpuShare | None:
    """Return how tasks share the CPUs, by what they used and the least level; None where they use none."""
    whole = whole_windows(windows)
    used = sum(window.cpu_seconds for window in whole)
    good = sum(max(0, window.done - window.errors) for window in whole)
    return fit_away(used / good, whole[0].cores, least.level.concurrency, least.value) if used else None


def choose_terms(points: Sequence[Point], share: CpuShare | None) -> Terms:
    """Return the law's terms that so many levels can tell apart; the others' columns are nought."""
    coherent = len({point.level.concurrency for point in points}) >= COHERENCE_LEVELS
    recycled = len({point.level.max_tasks_per_child for point in points}) > 1

    def columns(level: Level) -> tuple[float, ...]:
        others = level.concurrency - 1
        return (
            1.0,
            float(others),
            float(level.concurrency * others) if coherent else 0.0,
            1 / level.max_tasks_per_child if recycled else 0.0,
        )

    return Terms(columns, lambda level: share.waited_seconds(level.concurrency) if share else 0.0)
