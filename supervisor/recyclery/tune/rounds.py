"""What levels do beside each other, whatever the machine did to all of them for a while. Pure.

A machine that others use is faster in one round of windows than in the next. So a window's speed is taken as
its level's times its round's, and what this leaves over is the noise (two-way analysis of variance without
interaction, on logarithms). Later rounds may have only some of the levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from recyclery.tune.statistics import Spread
from recyclery.tune.windows import Level, Window

# With the same levels in each round the first sweep is exact; else each brings what is left down to a part.
SWEEPS, SETTLED = 500, 1e-9


@dataclass(frozen=True, slots=True)
class Paces:
    """Each level's tasks per second in a round of the middle kind, and what windows differ by beside that."""

    per_second: Mapping[Level, float]
    spread: Spread


def compare_rounds(windows: Sequence[Window]) -> Paces:
    """Return the paces of the levels whose every window had a task that ended well."""
    speeds: dict[Level, dict[int, float]] = {}
    for window in windows:
        speeds.setdefault(window.level, {})[window.repeat] = window.per_second
    logs = {
        (level, number): math.log(speed)
        for level, by_round in speeds.items()
        if all(by_round.values())
        for number, speed in by_round.items()
    }
    levels, rounds = split(logs)
    freedom = max(0, len(logs) - len(levels) - len(rounds) + 1)
    squares = math.fsum((log - levels[level] - rounds[number]) ** 2 for (level, number), log in logs.items())
    spread = Spread(math.sqrt(squares / freedom) if freedom else 0.0, freedom)
    return Paces({level: math.exp(log) for level, log in levels.items()}, spread)


def split(logs: Mapping[tuple[Level, int], float]) -> tuple[dict[Level, float], dict[int, float]]:
    """Return what comes of the levels, and what of the rounds; the rounds' mean is 0."""
    levels = dict.fromkeys((level for level, _ in logs), 0.0)
    rounds = dict.fromkeys((number for _, number in logs), 0.0)
    for _ in range(SWEEPS if logs else 0):
        before = dict(levels)
        for level in levels:
            levels[level] = fmean(log - rounds[r] for (one, r), log in logs.items() if one == level)
        for number in rounds:
            rounds[number] = fmean(log - levels[one] for (one, r), log in logs.items() if r == number)
        middle = fmean(rounds.values())
        rounds = {number: effect - middle for number, effect in rounds.items()}
        levels = {level: effect + middle for level, effect in levels.items()}
        if all(abs(effect - before[level]) < SETTLED for level, effect in levels.items()):
            break
    return levels, rounds
