"""Which levels are tried in what order, and which of them need not be. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

from recyclery.decide.budget import mib
from recyclery.tune.windows import Level, Window

# A level that brings less than this more than the one before it is the last that is tried unasked.
WORTH = 1.05
# What starting and stopping a supervisor takes beside the window, until it was seen.
AROUND_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Step:
    """One window to measure."""

    level: Level
    repeat: int


def list_levels(concurrencies: Iterable[int], max_tasks: Iterable[int]) -> list[Level]:
    """Return all pairs, the lowest first."""
    return sorted(Level(each, most) for each in set(concurrencies) for most in set(max_tasks))


def order_repeats(levels: Iterable[Level], repeats: int, seed: int) -> Iterator[Step]:
    """Yield the second and later windows of each level, each round of them in an order of chance.

    So what changes slowly, as a machine that others use, falls on all levels alike.
    """
    chance = random.Random(seed)  # noqa: S311  # not a secret
    ordered = sorted(levels)
    for repeat in range(1, repeats):
        shuffled = list(ordered)
        chance.shuffle(shuffled)
        yield from (Step(level, repeat) for level in shuffled)


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
    done = sorted((w for w in windows if not w.stopped and w.seconds), key=lambda w: w.level)
    if len(done) < 2:
        return True
    before, last = (w.done / w.seconds for w in done[-2:])
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
