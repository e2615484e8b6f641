"""What each level did, all its windows together."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from recyclery.tune.spec import Level
from recyclery.tune.statistics import (
    Estimate,
    Rates,
    Spread,
    Times,
    estimate_rates,
    measure_times,
    pool_spread,
    variation,
)
from recyclery.tune.window import Window

# With fewer tasks, or fewer for each slot, a level is shown and not chosen.
LEAST_TASKS = 10
LEAST_TASKS_PER_SLOT = 3
# Children that left for their memory: retired before their number of tasks, or killed to make room.
MEMORY_RECYCLES = ("budget", "preempt")

Bottleneck = Literal["memory", "CPU", "elsewhere", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelResult:
    """One level: its figures over all repeats that ran their time, and how they were judged."""

    level: Level
    repeats: int
    done: int
    errors: int
    failures: dict[str, int]
    """The errors by their names."""
    per_second: Estimate | None
    """Tasks that succeeded; None where no window ran its time."""
    adjusted_per_second: Estimate | None
    """The same to compare levels by: its bounds leave out what made a round fast or slow for all of them."""
    waited: Times | None
    ran: Times | None
    variation: float
    """Coefficient of variation of the time that tasks ran."""
    peak_floor_bytes: Estimate | None
    """Unreclaimable memory at its highest, as repeats had it."""
    highest_floor_bytes: int
    """The highest of all windows, those that were aborted too."""
    child_peak_bytes: int
    recycles: dict[str, int]
    oom_kills: int
    cpu_share: float
    """Of all that the container may use."""
    cpu_seconds_per_task: float
    stopped: str
    """Why a window was aborted."""
    bottleneck: Bottleneck = "none"
    rejection: str = ""
    """Why the level cannot be chosen; empty where it can."""

    @property
    def was_tried(self) -> bool:
        """Whether anything ran; else lower levels showed that it would not fit."""
        return self.highest_floor_bytes > 0

    @property
    def expected_peak_bytes(self) -> float:
        """How high unreclaimable memory may go: the highest seen, and what repeats differ by."""
        return max(self.highest_floor_bytes, self.peak_floor_bytes.high if self.peak_floor_bytes else 0.0)

    @property
    def memory_recycles(self) -> int:
        """How many children left for their memory."""
        return sum(self.recycles.get(reason, 0) for reason in MEMORY_RECYCLES)

    @property
    def has_enough_tasks(self) -> bool:
        """Whether enough tasks ended for the level to be chosen."""
        least = max(LEAST_TASKS, LEAST_TASKS_PER_SLOT * self.level.concurrency)
        return self.per_second is not None and self.done >= least


def summarize_levels(windows: Iterable[Window]) -> tuple[LevelResult, ...]:
    """Return each level's figures, the smallest level first."""
    by_level: dict[Level, list[Window]] = defaultdict(list)
    for window in windows:
        by_level[window.level].append(window)
    whole = {level: complete_windows(group) for level, group in by_level.items()}
    repeats = pool_spread([window.per_second for window in group] for group in whole.values())
    peaks = pool_spread([float(window.peak_floor_bytes) for window in group] for group in whole.values())
    rates = estimate_rates(window for group in whole.values() for window in group)
    return tuple(
        summarize_level(by_level[level], whole[level], repeats, rates, peaks) for level in sorted(by_level)
    )


def complete_windows(windows: Iterable[Window]) -> list[Window]:
    """Return the windows that ran their time."""
    return [window for window in windows if not window.stopped and window.seconds > 0]


def summarize_level(
    windows: Sequence[Window], whole: Sequence[Window], repeats: Spread, rates: Rates, peaks: Spread
) -> LevelResult:
    """Return one level's figures; `whole` are those of its windows that ran their time."""
    level = windows[0].level
    ran = [seconds for window in whole for seconds in window.ran_seconds]
    seconds = sum(window.seconds for window in whole)
    done, succeeded = sum(window.done for window in whole), sum(window.succeeded for window in whole)
    cpu = sum(window.cpu_seconds for window in whole)
    recycles: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for window in windows:
        recycles.update(dict(window.recycles))
        failures.update(dict(window.failures))
    per_second = adjusted = peak = None
    if succeeded:
        rate = rates.per_second.get(level, succeeded / seconds)
        # Repeats that happen to agree are no surer than the number of tasks and their variation allow.
        of_tasks = variation(ran) / math.sqrt(succeeded)
        per_second, adjusted = (
            Estimate.around(rate, max(spread.share / math.sqrt(len(whole)), of_tasks), spread.reach)
            for spread in (repeats, rates.spread)
        )
    if whole:
        mean = fmean(window.peak_floor_bytes for window in whole)
        peak = Estimate.around(mean, peaks.share / math.sqrt(len(whole)), peaks.reach)
    return LevelResult(
        level=level,
        repeats=len(whole),
        done=done,
        errors=sum(window.errors for window in whole),
        failures=dict(failures.most_common()),
        per_second=per_second,
        adjusted_per_second=adjusted,
        waited=measure_times([seconds for window in whole for seconds in window.waited_seconds]),
        ran=measure_times(ran),
        variation=variation(ran),
        peak_floor_bytes=peak,
        highest_floor_bytes=max(window.peak_floor_bytes for window in windows),
        child_peak_bytes=max((size for window in windows for size in window.child_peak_bytes), default=0),
        recycles=dict(recycles),
        oom_kills=sum(window.oom_kills for window in windows),
        cpu_share=cpu / (seconds * windows[0].cores) if seconds else 0.0,
        cpu_seconds_per_task=cpu / done if done else 0.0,
        stopped=next((window.stopped for window in windows if window.stopped), ""),
    )
