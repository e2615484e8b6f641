"""What each level did, what limits it, and which level suits best."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from recyclery.common.statistics import NORMAL, deviation
from recyclery.common.units import format_bytes
from recyclery.config.settings import Alerts, Memory
from recyclery.decide.max_tasks import choose_max_tasks
from recyclery.decide.memory_model import PoolModel
from recyclery.tune.spec import Level, Objective
from recyclery.tune.statistics import (
    UPPER_SHARE,
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

MEMORY = Memory()
SUCCESS_PERCENT = Alerts().success_percent
# CPUs busy to this share are full: the rest goes to starting children and reading clocks.
FULL_CPU_SHARE = 0.85
# Slots that each do less than this share of what one did at the least level wait for something.
CROWDED_SHARE = 0.75
# A difference that is not worth another slot.
SAME_SHARE = 0.05
SAME = -math.log(1 - SAME_SHARE)
# Intervals hold for a pair of levels: of many, compared after each round, one is easily off by more.
OF_MANY = 1.5
# Memory limits are recommended in steps of this.
STEP_BYTES = 64 << 20
# With fewer tasks, or fewer for each slot, a level is shown and not chosen.
LEAST_DONE = 10
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


def run_limit_bytes(windows: Iterable[Window], objective: Objective) -> int:
    """Return the memory limit that levels have to fit."""
    return objective.memory_bytes or min((window.limit_bytes for window in windows), default=0)


def evaluate_levels(windows: Sequence[Window], objective: Objective) -> tuple[LevelResult, ...]:
    """Return each level's figures with its bottleneck, and why it cannot be chosen."""
    limit = run_limit_bytes(windows, objective)
    results = summarize_levels(windows)
    least = next((result for result in results if result.per_second is not None), None)
    return tuple(
        replace(
            result,
            bottleneck=find_bottleneck(result, least or result, limit),
            rejection=find_rejection(result, objective, limit),
        )
        for result in results
    )


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
    recycles = sum((Counter(dict(window.recycles)) for window in windows), Counter[str]())
    failures = sum((Counter(dict(window.failures)) for window in windows), Counter[str]())
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


def find_bottleneck(result: LevelResult, least: LevelResult, limit_bytes: int) -> Bottleneck:
    """Return what was measured to limit a level: memory, CPU, or neither though slots do less ("elsewhere").

    What is elsewhere, such as a lock or a service, the container's figures do not show.
    """
    if result.oom_kills or result.memory_recycles or not fits(result.highest_floor_bytes, limit_bytes):
        return "memory"
    if result.cpu_share >= FULL_CPU_SHARE:
        return "CPU"
    if result.adjusted_per_second is None or least.adjusted_per_second is None:
        return "none"
    each = result.adjusted_per_second.high / result.level.concurrency
    alone = least.adjusted_per_second.value / least.level.concurrency
    return "elsewhere" if each < CROWDED_SHARE * alone else "none"


def find_rejection(result: LevelResult, objective: Objective, limit_bytes: int) -> str:
    """Return why a level cannot be chosen; empty where it can."""
    if result.oom_kills:
        return f"the kernel killed {result.oom_kills} processes: out of memory"
    if result.stopped:
        return f"given up: {result.stopped}"
    if preempted := result.recycles.get("preempt", 0):
        return f"{preempted} children were killed to make room"
    if not fits(result.expected_peak_bytes, limit_bytes):
        return (
            f"memory may reach {format_bytes(int(result.expected_peak_bytes))}, "
            f"past {MEMORY.high_percent} % of {format_bytes(limit_bytes)}"
        )
    least = max(LEAST_DONE, LEAST_TASKS_PER_SLOT * result.level.concurrency)
    if result.per_second is None or result.ran is None or result.done < least:
        return f"{result.done} tasks are too few to tell"
    failed_share = result.errors / result.done
    if failed_share > 1 - SUCCESS_PERCENT / 100:
        most = next((name for name in result.failures if name), "")
        return f"{failed_share:.0%} of the tasks failed" + (f", most of them with {most}" if most else "")
    if objective.slo_seconds is not None and result.ran.p95.value > objective.slo_seconds:
        return f"p95 is {result.ran.p95.value:.3g} s, over {objective.slo_seconds:g} s"
    return ""


def fits(peak_bytes: float, limit_bytes: int) -> bool:
    """Return whether the supervisor would let pools take tasks at this peak of unreclaimable memory."""
    return peak_bytes <= limit_bytes * MEMORY.high_percent / 100


def choose_level(results: Iterable[LevelResult], objective: Objective) -> LevelResult | None:
    """Return the smallest level that does as much as the best of those that may be chosen; None of none."""
    candidates = [result for result in results if not result.rejection]
    if objective.metric == "latency":
        candidates = find_fastest(candidates)
    likely = likely_best(near_best(candidates, OF_MANY))
    if not likely:
        return None
    least = min(result.level.concurrency for result in likely)
    same = [result for result in likely if result.level.concurrency == least]
    # Of these the fewest restarts of those that hold the least memory.
    lowest = min(result.expected_peak_bytes for result in same)
    light = [result for result in same if result.expected_peak_bytes <= lowest * (1 + SAME_SHARE)]
    return max(light, key=lambda result: result.level.max_tasks_per_child)


def near_best(results: Iterable[LevelResult], margin: float = 1.0) -> list[LevelResult]:
    """Return the levels whose throughput cannot be told from the best one's, or is hardly less."""
    rates = [(result, result.adjusted_per_second) for result in results]
    best = max((rate for _, rate in rates if rate), key=lambda rate: rate.value, default=None)
    return [result for result, rate in rates if best and rate and is_same(rate, best, margin)]


def find_fastest(results: Iterable[LevelResult]) -> list[LevelResult]:
    """Return the levels whose tasks take no longer than where they take the least time."""
    times = [(result, result.ran.p95) for result in results if result.ran]
    best = min((time for _, time in times), key=lambda time: time.value, default=None)
    return [result for result, time in times if best and is_same(time, best)]


def likely_best(near: Sequence[LevelResult]) -> list[LevelResult]:
    """Return those of the levels near the best one that likely do as much.

    The best of many was lucky. So differences count only as far as they are larger than noise makes
    those of equal levels (empirical Bayes: Efron and Morris, 1973).
    """
    rates = [result.adjusted_per_second for result in near if result.adjusted_per_second is not None]
    if len(rates) < 2:
        return list(near)
    logs = [math.log(rate.value) for rate in rates]
    seen = deviation(logs, fmean(logs)) ** 2
    noise = fmean((math.log(rate.value / rate.low) / NORMAL.inv_cdf(UPPER_SHARE)) ** 2 for rate in rates)
    real_share = max(0.0, 1 - noise / seen) if seen else 0.0
    most = max(logs)
    return [result for result, log in zip(near, logs, strict=True) if (most - log) * real_share <= SAME]


def is_same(one: Estimate, other: Estimate, margin: float = 1.0) -> bool:
    """Return whether two figures differ by less than their noise, or by less than is worth anything."""
    return abs(math.log(one.value / other.value)) <= max(margin * ratio_noise(one, other), SAME)


def ratio_noise(one: Estimate, other: Estimate) -> float:
    """Return how much noise may change the ratio of two figures, as a logarithm."""
    # The upper bound of a quantile may be infinite; the lower one never is.
    return math.hypot(*(math.log(figure.value / figure.low) for figure in (one, other)))


def choose_memory_limit(result: LevelResult, limit_bytes: int) -> int:
    """Return the least limit below which no child is retired for its memory; no more than the one given.

    Where children left for their memory, less was never tried: it is the one given.
    """
    if result.memory_recycles:
        return limit_bytes
    wanted = result.expected_peak_bytes * 100 / MEMORY.retire_percent
    return min(limit_bytes, math.ceil(wanted / STEP_BYTES) * STEP_BYTES)


def choose_tasks(result: LevelResult, base_bytes: int, limit_bytes: int, learned: PoolModel) -> int:
    """Return the tasks that each child has memory for at this level, no more than were tried."""
    slots = result.level.concurrency
    main = max(0.0, base_bytes - slots * (learned.fresh_child_bytes or 0.0))
    budget = (limit_bytes * MEMORY.retire_percent / 100 - main) / slots
    return choose_max_tasks(learned, int(budget), result.level.max_tasks_per_child)
