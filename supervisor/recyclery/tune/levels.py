"""What each level showed, all its windows together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from recyclery.tune.spec import Level
from recyclery.tune.statistics import (
    Estimate,
    Paces,
    Spread,
    Times,
    about,
    compare_rounds,
    measure_times,
    pool_spread,
    variation,
)
from recyclery.tune.window import Window

# Fewer tasks, or fewer to each place, say little of a level: it is shown, not chosen.
LEAST_TASKS = 10
LEAST_TASKS_PER_PLACE = 3
# Children that left for want of memory: retired before their number was reached, or killed for room.
MEMORY_RECYCLES = ("budget", "preempt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One level: its figures over all repeats that ran their time."""

    level: Level
    repeats: int
    done: int
    errors: int
    failures: dict[str, int]
    """The errors by their names."""
    per_second: Estimate | None
    """Tasks that ended well; None where no window ran its time."""
    pace: Estimate | None
    """The same to compare levels by: its bounds leave out what made a round fast or slow for all of them."""
    waited: Times | None
    ran: Times | None
    variation: float
    """Coefficient of variation of the time that tasks ran."""
    peak_floor_bytes: Estimate | None
    highest_floor_bytes: int
    """Of all windows, those that were given up too."""
    child_peak_bytes: int
    recycles: dict[str, int]
    oom_kills: int
    cpu_share: float
    """Of all that the container may use."""
    cpu_seconds_per_task: float
    stopped: str
    """Why a window was given up early."""

    @property
    def was_tried(self) -> bool:
        """Whether anything ran; else lower levels showed that it would not fit."""
        return self.highest_floor_bytes > 0

    @property
    def memory_recycles(self) -> int:
        """How many children left for want of memory."""
        return sum(self.recycles.get(reason, 0) for reason in MEMORY_RECYCLES)

    @property
    def is_enough(self) -> bool:
        """Whether enough tasks ended for the level to be chosen."""
        least = max(LEAST_TASKS, LEAST_TASKS_PER_PLACE * self.level.concurrency)
        return self.per_second is not None and self.done >= least

    @property
    def failing_share(self) -> float:
        """The share of tasks that failed."""
        return self.errors / self.done if self.done else 0.0


def measure_levels(windows: Sequence[Window]) -> tuple[Measured, ...]:
    """Return each level's figures, the smallest level first."""
    by_level: dict[Level, list[Window]] = defaultdict(list)
    for window in windows:
        by_level[window.level].append(window)
    speeds, paces = speed_spread(windows), compare_rounds(whole_windows(windows))
    heights = floor_spread(windows)
    return tuple(measure_level(by_level[level], speeds, paces, heights) for level in sorted(by_level))


def measure_level(windows: Sequence[Window], speeds: Spread, paces: Paces, heights: Spread) -> Measured:
    """Return what one level's windows showed."""
    whole = whole_windows(windows)
    ran = [seconds for window in whole for seconds in window.ran_seconds]
    seconds = sum(window.seconds for window in whole)
    done, cpu = sum(window.done for window in whole), sum(window.cpu_seconds for window in whole)
    recycles: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for window in windows:
        recycles.update(dict(window.recycles))
        failures.update(dict(window.failures))
    value = estimate_speed(whole, paces)
    return Measured(
        level=windows[0].level,
        repeats=len(whole),
        done=done,
        errors=sum(window.errors for window in whole),
        failures=dict(failures.most_common()),
        per_second=about_speed(value, whole, speeds),
        pace=about_speed(value, whole, paces.spread),
        waited=measure_times([seconds for window in whole for seconds in window.waited_seconds]),
        ran=measure_times(ran),
        variation=variation(ran),
        peak_floor_bytes=about(
            fmean(window.peak_floor_bytes for window in whole),
            heights.share / math.sqrt(len(whole)),
            heights.reach,
        )
        if whole
        else None,
        highest_floor_bytes=max(window.peak_floor_bytes for window in windows),
        child_peak_bytes=max((size for window in windows for size in window.child_peak_bytes), default=0),
        recycles=dict(recycles),
        oom_kills=sum(window.oom_kills for window in windows),
        cpu_share=cpu / (seconds * windows[0].cores) if seconds else 0.0,
        cpu_seconds_per_task=cpu / done if done else 0.0,
        stopped=next((window.stopped for window in windows if window.stopped), ""),
    )


def whole_windows(windows: Sequence[Window]) -> list[Window]:
    """Return the windows that ran their time."""
    return [window for window in windows if not window.stopped and window.seconds > 0]


def speed_spread(windows: Sequence[Window]) -> Spread:
    """Return how much the speeds of one level's repeats differ."""
    return pool_spread(group_by_level(windows, lambda window: window.per_second))


def floor_spread(windows: Sequence[Window]) -> Spread:
    """Return how much the peaks of one level's repeats differ."""
    return pool_spread(group_by_level(windows, lambda window: float(window.peak_floor_bytes)))


def group_by_level(windows: Sequence[Window], figure: Callable[[Window], float]) -> list[list[float]]:
    """Return a figure of all whole windows, those of one level together."""
    groups: dict[Level, list[float]] = defaultdict(list)
    for window in whole_windows(windows):
        groups[window.level].append(figure(window))
    return list(groups.values())


def estimate_speed(whole: Sequence[Window], paces: Paces) -> float | None:
    """Return a level's tasks per second; None where none ended well."""
    good = sum(max(0, window.done - window.errors) for window in whole)
    if not good:
        return None
    return paces.per_second.get(whole[0].level, good / sum(window.seconds for window in whole))


def about_speed(value: float | None, whole: Sequence[Window], spread: Spread) -> Estimate | None:
    """Return tasks per second with the interval that repeats and tasks allow.

    Repeats that happen to agree make nothing surer than the number of tasks and their variation do.
    """
    return None if value is None else about(value, speed_error(whole, spread), spread.reach)


def speed_error(whole: Sequence[Window], spread: Spread) -> float:
    """Return the standard error of a level's tasks per second, as a share of it."""
    good = sum(max(0, window.done - window.errors) for window in whole)
    ran = [seconds for window in whole for seconds in window.ran_seconds]
    return max(spread.share / math.sqrt(len(whole)), variation(ran) / math.sqrt(good))
