"""Which levels are tried in what order, and which of them need not be. Pure."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from recyclery.decide.budget import mib
from recyclery.tune.evaluate import OF_MANY, SAME, doubt, find_obstacle, near_best
from recyclery.tune.levels import Measured, measure_levels, whole_windows
from recyclery.tune.spec import Level, Request, Wishes
from recyclery.tune.statistics import compare_rounds
from recyclery.tune.window import Window

# A level that brings less than this more than the one before it is the last that is tried unasked.
WORTH = 1.05
# What starting and stopping a supervisor takes beside the window, until it was seen.
AROUND_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Step:
    """One window to measure."""

    level: Level
    repeat: int


def plan_next(windows: Sequence[Window], request: Request) -> Step | None:
    """Return which window is to be measured next; None where nothing is missing.

    The first round goes upwards: what a level needs is known before a higher one is tried. Each later one has
    its levels in an order of chance, so that what changes slowly favours none.
    """
    last = max((window.repeat for window in windows), default=0)
    if (level := find_missing(last, windows, request)) is not None:
        return Step(level, last)
    if last + 1 < count_rounds(windows, request):
        level = find_missing(last + 1, windows, request)
        return Step(level, last + 1) if level is not None else None
    return None


def find_missing(number: int, windows: Sequence[Window], request: Request) -> Level | None:
    """Return the next level of a round; None where it has all."""
    done = {window.level for window in windows if window.repeat == number}
    if number:
        levels = list_round(number, [window for window in windows if window.repeat < number], request)
        random.Random(f"{request.seed} {number}").shuffle(levels)  # noqa: S311  # not a secret
        if (missing := next((level for level in levels if level not in done), None)) is not None:
            return missing
    return find_higher(windows, request)


def find_higher(windows: Sequence[Window], request: Request) -> Level | None:
    """Return a level that was never tried, and is to be: one that was named, or the next of the ladder."""
    for most in request.max_tasks:
        of_this = [window for window in windows if window.level.max_tasks_per_child == most]
        if request.asked_for:
            tried = {window.level.concurrency for window in of_this}
            places = next((each for each in request.concurrencies if each not in tried), None)
        else:
            places = climb(of_this, request.concurrencies)
        if places is not None:
            return Level(places, most)
    return None


def climb(windows: Sequence[Window], ladder: Sequence[int]) -> int | None:
    """Return the next concurrency of a ladder, as long as each brings more; None where that ends.

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


def list_round(number: int, before: Sequence[Window], request: Request) -> list[Level]:
    """Return the levels of a later round, by the windows of those before: all, then those near the best one."""
    stopped = {window.level for window in before if window.stopped}
    if number < request.repeats:
        return sorted({window.level for window in before} - stopped)
    return sorted(one.level for one in contenders(before, request))


def count_rounds(windows: Sequence[Window], request: Request) -> int:
    """Return how many rounds it takes, as far as is known: noise falls with the root of their number."""
    rounds = 1 + max((window.repeat for window in windows), default=0)
    contending = [one.pace for one in contenders(windows, request) if one.pace is not None]
    if rounds < request.repeats or len(contending) < 2:
        return request.repeats
    best = max(contending, key=lambda pace: pace.value)
    unsure = max(doubt(pace, best) for pace in contending if pace is not best)
    wanted = math.ceil(rounds * (unsure / SAME) ** 2)
    return max(request.repeats, min(request.most_repeats, wanted))


def contenders(windows: Sequence[Window], request: Request) -> list[Measured]:
    """Return the levels of which one will be recommended, as far as is known."""
    limit = request.memory_bytes or min((window.limit_bytes for window in windows), default=0)
    wishes = Wishes(pool=request.pool)
    return near_best([one for one in measure_levels(windows) if not find_obstacle(one, wishes, limit)], OF_MANY)


def list_ahead(number: int, windows: Sequence[Window], request: Request) -> list[Level]:
    """Return the levels of all windows still to come in a round and those after it, as far as is known."""
    done = {window.level for window in windows if window.repeat == number}
    stopped = {window.level for window in windows if window.stopped}
    if number == 0:
        now = [level for level in request.levels if level not in done]
        later = [level for level in request.levels if level not in stopped]
    else:
        before = [window for window in windows if window.repeat < number]
        now = [level for level in list_round(number, before, request) if level not in done]
        later = list_round(number + 1, windows, request)
    return now + later * (count_rounds(windows, request) - number - 1)


def why_skip(level: Level, windows: Sequence[Window]) -> str:
    """Say why a level cannot fit, by what lower ones showed; empty where it may."""
    lower = [w for w in windows if w.level.concurrency <= level.concurrency]
    same = [w for w in lower if w.level.max_tasks_per_child == level.max_tasks_per_child]
    for window in same:
        if window.stopped:
            return f"at {window.level.concurrency} it did not fit: {window.stopped}"
    known = max((w for w in lower if w.child_peak_bytes), key=lambda w: w.level.concurrency, default=None)
    if known is None or not known.limit_bytes:
        return ""
    more = level.concurrency - known.level.concurrency
    expected = known.peak_floor_bytes + more * int(fmean(known.child_peak_bytes))
    if more > 0 and expected > known.limit_bytes:
        return (
            f"{mib(expected)} are to be expected, and the limit is {mib(known.limit_bytes)}: "
            f"{mib(known.peak_floor_bytes)} at {known.level.concurrency}, and "
            f"{mib(int(fmean(known.child_peak_bytes)))} for each child more"
        )
    return ""


def is_worth_more(windows: Sequence[Window]) -> bool:
    """Tell whether the last level tried brought enough for a higher one to be tried."""
    paces = compare_rounds(whole_windows(windows)).per_second
    if len(paces) < 2:
        return True
    before, last = (pace for _, pace in sorted(paces.items())[-2:])
    return last >= WORTH * before


def expect_seconds(level: Level, windows: Sequence[Window], least_seconds: float, most_seconds: float) -> float:
    """Return how long a window at a level may take, with all around it."""
    known = [w for w in windows if w.ran_seconds]
    if not known:
        return AROUND_SECONDS + least_seconds
    nearest = min(known, key=lambda w: abs(w.level.concurrency - level.concurrency))
    one = fmean(nearest.ran_seconds)
    # A child's life, and a task of warm-up.
    return AROUND_SECONDS + min(most_seconds, max(least_seconds, one * level.max_tasks_per_child)) + one
