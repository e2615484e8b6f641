"""leak_worlds: not a benchmark; the pools whose leaks leak_report looks for, made as the history keeps them.

Noise is what was measured on real children (Chromium 156). A child's own memory, read by itself as a task ends,
comes out alike to a page or two. An idle kept browser wanders by 1.2 MiB, and where the queue is never empty
one reading in thirty falls into the next page's loading and is off by some 20 MiB.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from recyclery.history.reader import StoredRun
from recyclery.history.records import Parts

MIB = 1 << 20
PYTHON_NOISE_MIB = 0.1
BROWSER_NOISE_MIB = 1.2
ODD_READINGS = 1 / 30
ODD_MIB = 20.0


@dataclass(frozen=True)
class Planted:
    """A task with a known leak: what shape, where, MiB per run on average, and how much runs differ."""

    name: str
    shape: str
    place: str = "python"
    mib: float = 0.0
    relative: float = 0.3
    warm_up: float = 0.0
    """MiB of a cache that fills in every child, within about `warm_up_runs` runs."""
    warm_up_runs: float = 8.0

    def leak(self, chance: random.Random) -> float:
        """Return the MiB that a run leaves for ever."""
        if self.shape == "step":
            # One run in thirty leaves all of it.
            return 30 * self.mib if chance.random() < 1 / 30 else 0.0
        variance = math.log(1 + self.relative**2)
        return (
            chance.lognormvariate(math.log(self.mib) - variance / 2, math.sqrt(variance)) if self.mib else 0.0
        )

    def warm(self, chance: random.Random, own: int) -> float:
        """Return the MiB that a run adds to a cache after so many of the same task in its child."""
        runs = self.warm_up_runs
        filled = math.exp(-own / runs) - math.exp(-(own + 1) / runs)
        return self.warm_up * filled * chance.uniform(0.8, 1.2)


@dataclass
class Child:
    """A child's true memory in MiB."""

    number: int
    held: dict[str, float] = field(default_factory=lambda: {"python": 50.0, "browser": 0.0, "shared": 0.0})

    def read(self, chance: random.Random, noise: float) -> Parts:
        """Return what a reading says of it; `noise` multiplies what readings are off by."""
        browser = self.held["browser"]
        if browser:
            browser += chance.gauss(0, BROWSER_NOISE_MIB * noise)
            browser += chance.uniform(-1, 1) * ODD_MIB if chance.random() < ODD_READINGS else 0.0
        python = self.held["python"] + chance.gauss(0, PYTHON_NOISE_MIB * noise)
        return Parts(round(python * MIB), max(0, round(browser * MIB)), round(self.held["shared"] * MIB))


def live(
    tasks: Sequence[Planted],
    runs_each: int,
    tasks_per_child: int,
    seed: str,
    *,
    noise: float = 1.0,
    browsers: bool = False,
) -> tuple[list[StoredRun], dict[str, float]]:
    """Let a pool run each task so often, in random order; return the runs, and what each leaked per run."""
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    order = [task for task in tasks for _ in range(runs_each)]
    chance.shuffle(order)
    left = dict.fromkeys((task.name for task in tasks), 0.0)
    runs: list[StoredRun] = []
    child, before, own = Child(0), Parts(), dict.fromkeys(left, 0)
    for number, task in enumerate(order):
        place = number % tasks_per_child
        if place == 0:
            child, own = Child(number), dict.fromkeys(left, 0)
            child.held["browser"] = 230.0 if browsers else 0.0
            before = child.read(chance, noise)
        leak = task.leak(chance)
        left[task.name] += leak / runs_each
        child.held[task.place] += leak + task.warm(chance, own[task.name])
        own[task.name] += 1
        after = child.read(chance, noise)
        peak = after._replace(python=max(before.python, after.python) + 10 * MIB)
        runs.append(
            StoredRun(
                "slow", child.number, {task.name: 1}, place, number, 1.0, before, peak, after, True, "done"
            )
        )
        before = after
    return runs, left
