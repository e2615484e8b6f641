"""Levels that were not run, as the laws predict them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from recyclery.tune.choose import SAME_SHARE
from recyclery.tune.fitting import Refused
from recyclery.tune.levels import Measured
from recyclery.tune.memory import Peaks, fits
from recyclery.tune.statistics import Estimate
from recyclery.tune.throughput import Throughput
from recyclery.tune.windows import Level

# So far beyond the highest level that was run a law is still asked.
BEYOND = 1.5
MOST_PREDICTIONS = 48


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a level would show by the laws; None where there is none."""

    level: Level
    was_run: bool
    """Whether its concurrency was, also where it was given up."""
    per_second: Estimate | None
    peak_floor_bytes: Estimate | None
    fits: bool | None
    """Whether its memory would, with its whole interval; None where no law tells."""


def predict_levels(
    measured: Sequence[Measured],
    chosen: Level | None,
    throughput: Throughput | Refused,
    peaks: Peaks | Refused,
    limit_bytes: int,
) -> tuple[Prediction, ...]:
    """Return what the laws say from concurrency 1 to somewhat beyond the highest that was run."""
    if isinstance(throughput, Refused) and isinstance(peaks, Refused):
        return ()
    run = {one.level.concurrency for one in measured}
    highest = max(one.level.concurrency for one in measured if one.repeats)
    tasks = (chosen or measured[0].level).max_tasks_per_child
    predictions = []
    for concurrency in spread_levels(highest):
        level = Level(concurrency, tasks)
        speed = None if isinstance(throughput, Refused) else throughput.at(level)
        peak = None if isinstance(peaks, Refused) else peaks.at(level)
        room = fits(peak.high, limit_bytes) if peak else None
        predictions.append(Prediction(level, concurrency in run, speed, peak, room))
    return tuple(predictions)


def spread_levels(highest: int) -> list[int]:
    """Return the levels to predict: all of them where they are few, else less and less close."""
    last = math.ceil(highest * BEYOND)
    if last <= MOST_PREDICTIONS:
        return list(range(1, last + 1))
    step = last ** (1 / (MOST_PREDICTIONS - 1))
    return sorted({round(step**place) for place in range(MOST_PREDICTIONS)})


def find_next(predictions: Sequence[Prediction], chosen: Estimate) -> Prediction | None:
    """Return the smallest level not run that promises surely more, in memory that is surely there."""
    promising = [
        (one, one.per_second.value)
        for one in predictions
        if not one.was_run and one.fits and one.per_second and one.per_second.low > chosen.high
    ]
    if not promising:
        return None
    most = max(speed for _, speed in promising)
    return next(one for one, speed in promising if speed >= most * (1 - SAME_SHARE))
