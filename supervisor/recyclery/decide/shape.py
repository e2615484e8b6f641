"""Whether a pool's children leak: the shape of their growth, with the figures it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from recyclery.common.statistics import sen_slope
from recyclery.decide.max_tasks import DOUBT, LEAST_LEAK_BYTES, late_steps, mean_growth
from recyclery.decide.memory_model import Step

Shape = Literal["leak", "plateau", "step", "undecided"]

# Fewer tasks, or fewer after the first half of the longest life, decide nothing.
JUDGED_STEPS = 40
JUDGED_LATE_STEPS = 16
# Idle trees of neighbouring tasks resemble each other; every fifth is as good as independent.
THINNING = 5
THINNED_STEPS = 10
# Growth surely below this is none.
PLATEAU_BYTES = 2 * LEAST_LEAK_BYTES
# Growth that keeps less than this share in the last quarter of a life is levelling off.
LASTING_SHARE = 0.8
# Growth is in steps if so few of the tasks leave two fifths of it.
STEP_TASKS = 0.05
STEP_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class Growth:
    """The verdict, and its figures over the second half of a life.

    What a task leaves, with bounds that it passes with a chance of 5 % each, and the share of all growth that
    the few largest steps make up.
    """

    shape: Shape
    steps: int
    bytes_per_task: float
    low_bytes_per_task: float
    high_bytes_per_task: float
    largest_share: float


def judge_growth(steps: Sequence[Step]) -> Growth:
    """Judge what the tasks of the second half of a life leave; the first half is dropped as warm-up.

    Two ways to see a leak, either will do. The mean of what each task left is blind to small leaks under noise;
    the rise of the idle tree is blind where leaks differ much: the children that leaked most are gone by then.
    """
    late = late_steps(steps)
    low, mean, high = mean_growth(late)
    share = largest_share(late)
    shape: Shape = "undecided"
    if len(steps) >= JUDGED_STEPS and len(late) >= JUDGED_LATE_STEPS:
        rise_low, rise, rise_high = trend(late)
        if share >= STEP_SHARE and mean > LEAST_LEAK_BYTES:
            shape = "step"
        elif low > LEAST_LEAK_BYTES or (rise_low > 0 and rise > LEAST_LEAK_BYTES):
            shape = "leak" if lasts(late) else "undecided"
        elif min(high, rise_high) < PLATEAU_BYTES:
            shape = "plateau"
    return Growth(shape, len(steps), mean, low, high, share)


def lasts(late: Sequence[Step]) -> bool:
    """Tell whether growth goes on in the last quarter of a life much as in the last half."""
    longest = max(step.tasks_before for step in late)
    last = [step.growth_bytes for step in late if step.tasks_before * 4 >= longest * 3]
    return fmean(last) >= LASTING_SHARE * fmean(step.growth_bytes for step in late)


def trend(steps: Sequence[Step]) -> tuple[float, float, float]:
    """Return low, middle and high of the bytes per task by which the idle tree rises over these steps."""
    ordered = sorted(steps, key=lambda step: step.tasks_before)
    thinned = ordered[:: max(1, min(THINNING, len(ordered) // THINNED_STEPS))]
    return sen_slope([(step.tasks_before, step.after_bytes) for step in thinned], DOUBT)


def largest_share(steps: Sequence[Step]) -> float:
    """Return the share of all growth that the largest 5 % of the steps make up: 0.05 to 1, 0 if none grew."""
    growths = sorted((max(0, step.growth_bytes) for step in steps), reverse=True)
    return sum(growths[: math.ceil(STEP_TASKS * len(growths))]) / max(1, sum(growths))
