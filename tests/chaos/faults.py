"""The plan: what goes wrong when, drawn from a seed and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

# How often each comes in one round; a round is dealt like a pack of cards, so that none is missing for long.
WEIGHTS = {
    "kill child": 4,
    "kill main": 4,
    "kill governor": 2,
    "kill chromedriver": 2,
    "kill browser": 2,
    "kill container": 1,
    "stop container": 1,
    "freeze child": 2,
    "freeze main": 2,
    "freeze worker": 2,
    "freeze governor": 1,
    "restart redis": 1,
    "pause redis": 1,
    "burst": 2,
    "replace": 2,
    "recycle": 2,
    "quit main": 2,
    "exhaust memory": 1,
    "send garbage": 2,
    "delay thousands": 1,
    "disconnect all": 2,
    "step redis": 2,
    "step container": 2,
}
LONGEST_FREEZE_SECONDS = 15.0
"""Longer than a lease: some of the frozen are taken for dead."""
REDIS_PAUSE_SECONDS = (2.0, 5.0)
LONGEST_STEP_SECONDS = 3 * 3600.0
SHORTEST_STEP_SECONDS = 60.0
GAP_SECONDS = (1.0, 3.5)


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong, `at` seconds from the beginning; `chance` (0 to 1) picks whom it hits."""

    at: float
    kind: str
    chance: float
    seconds: float = 0.0
    """How long what is frozen or paused stays so, or by how much a clock is then wrong."""


def plan_faults(seed: int, seconds: float) -> list[Fault]:
    """Return the faults of so many seconds, in their order."""
    dice = random.Random(seed)
    pack: list[str] = []
    faults: list[Fault] = []
    at = dice.uniform(*GAP_SECONDS)
    while at < seconds:
        if not pack:
            pack = [kind for kind, weight in WEIGHTS.items() for _ in range(weight)]
            dice.shuffle(pack)
        kind = pack.pop()
        faults.append(Fault(at, kind, dice.random(), draw_length(kind, dice)))
        at += dice.uniform(*GAP_SECONDS)
    return faults


def draw_length(kind: str, dice: random.Random) -> float:
    """Draw how long a fault lasts, short ones more often than long ones; for a clock, how far it is set."""
    if kind == "pause redis":
        return dice.uniform(*REDIS_PAUSE_SECONDS)
    if kind.startswith("step"):
        return dice.choice((-1, 1)) * dice.uniform(SHORTEST_STEP_SECONDS, LONGEST_STEP_SECONDS)
    if kind.startswith("freeze"):
        return 0.5 + (LONGEST_FREEZE_SECONDS - 0.5) * dice.random() ** 2
    return 0.0


def pick(candidates: Sequence[int], chance: float) -> int | None:
    """Return the candidate that a fault's chance points at; None where there is none."""
    ordered = sorted(candidates)
    return ordered[int(chance * len(ordered))] if ordered else None
