"""Which levels are tried in what order, and which of them need not be. Pure."""

import math
import random
from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from recyclery.common.units import format_mib
from recyclery.tune.evaluate import (
    OF_MANY,
    SAME,
    LevelResult,
    complete_windows,
    evaluate_levels,
    near_best,
    ratio_noise,
)
from recyclery.tune.spec import Level, Objective, Spec
from recyclery.tune.statistics import estimate_rates
from recyclery.tune.window import Window

# Without --concurrency, a level that does less than this more than the one before it is the last one tried.
WORTH = 1.05
# What starting and stopping a supervisor takes beside the window.
AROUND_SECONDS = 8.0


class PlannedWindow(NamedTuple):
    """One window to measure."""

    level: Level
    repeat: int


def plan_next(windows: Sequence[Window], spec: Spec) -> PlannedWindow | None:
    """Return which window is to be measured next; None where nothing is missing.

    The first round goes upwards: what a level needs is known before a higher one is tried. Each later round has
    its levels in random order, so that slow changes of the machine favour none.
    """
    last = max((window.repeat for window in windows), default=0)
    if (level := find_missing(last, windows, spec)) is not None:
        return PlannedWindow(level, last)
    if last + 1 < count_rounds(windows, spec):
        level = find_missing(last + 1, windows, spec)
        return PlannedWindow(level, last + 1) if level is not None else None
    return None


def find_missing(number: int, windows: Sequence[Window], spec: Spec) -> Level | None:
    """Return the next level of a round; None where it has all."""
    if number:
        done = {window.level for window in windows if window.repeat == number}
        levels = list_round(number, [window for window in windows if window.repeat < number], spec)
        random.Random(f"{spec.seed} {number}").shuffle(levels)  # noqa: S311  # not a secret
        if (missing := next((level for level in levels if level not in done), None)) is not None:
            return missing
    return find_untried(windows, spec)


def find_untried(windows: Sequence[Window], spec: Spec) -> Level | None:
    """Return a level that was never tried, and is to be: one that was named, or the next of the ladder."""
    for most in spec.max_tasks:
        of_this = [window for window in windows if window.level.max_tasks_per_child == most]
        if spec.asked_for:
            tried = {window.level.concurrency for window in of_this}
            concurrency = next((each for each in spec.concurrencies if each not in tried), None)
        else:
            concurrency = climb(of_this, spec.concurrencies)
        if concurrency is not None:
            return Level(concurrency, most)
    return None


def climb(windows: Sequence[Window], ladder: Sequence[int]) -> int | None:
    """Return the next concurrency of a ladder, as long as each does more; None where that ends.

    Below one that did not fit, those between it and the last that did are tried by halves.
    """
    if not is_worth_more(windows):
        return None
    stopped = {window.level.concurrency for window in windows if window.stopped}
    last = max({window.level.concurrency for window in windows} - stopped, default=0)
    if not stopped:
        return next((each for each in ladder if each > last), None)
    middle = (last + min(stopped)) // 2
    return middle if 0 < last < middle else None


def is_worth_more(windows: Sequence[Window]) -> bool:
    """Return whether the last level tried did enough more for a higher one to be tried."""
    rates = estimate_rates(complete_windows(windows)).per_second
    if len(rates) < 2:
        return True
    before, last = (rate for _, rate in sorted(rates.items())[-2:])
    return last >= WORTH * before


def list_round(number: int, before: Sequence[Window], spec: Spec) -> list[Level]:
    """Return the levels of a later round, by the windows of those before: all, then those near the best one."""
    if number < spec.repeats:
        stopped = {window.level for window in before if window.stopped}
        return sorted({window.level for window in before} - stopped)
    return sorted(result.level for result in list_contenders(before, spec))


def count_rounds(windows: Sequence[Window], spec: Spec) -> int:
    """Return how many rounds it takes, as far as is known: noise falls with the root of their number."""
    rounds = 1 + max((window.repeat for window in windows), default=0)
    contenders = list_contenders(windows, spec) if rounds >= spec.repeats else []
    rates = [rate for one in contenders if (rate := one.adjusted_per_second) is not None]
    if len(rates) < 2:
        return spec.repeats
    best = max(rates, key=lambda rate: rate.value)
    noise = max(ratio_noise(rate, best) for rate in rates if rate is not best)
    return max(spec.repeats, min(spec.most_repeats, math.ceil(rounds * (noise / SAME) ** 2)))


def list_contenders(windows: Sequence[Window], spec: Spec) -> list[LevelResult]:
    """Return the levels of which one will be recommended, as far as is known."""
    results = evaluate_levels(windows, Objective(pool=spec.pool, memory_bytes=spec.memory_bytes))
    return near_best([result for result in results if not result.rejection], OF_MANY)


def list_ahead(number: int, windows: Sequence[Window], spec: Spec) -> list[Level]:
    """Return the levels of all windows still to come in a round and those after it, as far as is known."""
    done = {window.level for window in windows if window.repeat == number}
    if number == 0:
        stopped = {window.level for window in windows if window.stopped}
        now = [level for level in spec.levels if level not in done]
        later = [level for level in spec.levels if level not in stopped]
    else:
        before = [window for window in windows if window.repeat < number]
        now = [level for level in list_round(number, before, spec) if level not in done]
        later = list_round(number + 1, windows, spec)
    return now + later * (count_rounds(windows, spec) - number - 1)


def expect_seconds(level: Level, windows: Sequence[Window], spec: Spec) -> float:
    """Return how long a window at a level may take, with starting and stopping a supervisor."""
    known = [window for window in windows if window.ran_seconds]
    if not known:
        return AROUND_SECONDS + spec.least_seconds
    nearest = min(known, key=lambda window: abs(window.level.concurrency - level.concurrency))
    one = fmean(nearest.ran_seconds)
    # A child's life, and a task of warm-up.
    life = min(spec.most_seconds, max(spec.least_seconds, one * level.max_tasks_per_child))
    return AROUND_SECONDS + life + one


def why_skip(level: Level, windows: Sequence[Window]) -> str:
    """Return why a level cannot fit, by what lower ones showed; empty where it may."""
    lower = [window for window in windows if window.level.concurrency <= level.concurrency]
    for window in lower:
        if window.stopped and window.level.max_tasks_per_child == level.max_tasks_per_child:
            return f"at {window.level.concurrency} it did not fit: {window.stopped}"
    known = max((w for w in lower if w.child_peak_bytes), key=lambda w: w.level.concurrency, default=None)
    if known is None or not known.limit_bytes:
        return ""
    more, each = level.concurrency - known.level.concurrency, int(fmean(known.child_peak_bytes))
    expected = known.peak_floor_bytes + more * each
    if more > 0 and expected > known.limit_bytes:
        return (
            f"{format_mib(expected)} are to be expected, and the limit is {format_mib(known.limit_bytes)}: "
            f"{format_mib(known.peak_floor_bytes)} at {known.level.concurrency}, and "
            f"{format_mib(each)} for each child more"
        )
    return ""
