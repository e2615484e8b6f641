"""policy_worlds: not a benchmark; the worlds that policy_sim's children live in, in MiB.

A browser child has 190 MiB to grow into beside a page of about 350, one that runs plain Python some 200.

Worlds with surprises are those whose future is not in their past: tasks that change, rare ones far larger than
the others, or chances so wide that not even the best constant tail, chosen in hindsight, comes near the oracle.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

BASELINE_MIB = 60.0
BROWSER_BUDGET_MIB = 600.0
PLAIN_BUDGET_MIB = 275.0


@dataclass(frozen=True)
class Task:
    """What one task does: MiB it leaves, and its peak above where it began, what it leaves included."""

    growth: float
    peak: float
    name: str = "task"


@dataclass(frozen=True)
class World:
    """How tasks behave: `task` gets the source of chance, the place in the child's life and in the pool's."""

    name: str
    task: Callable[[random.Random, int, float], Task]
    surprises: bool = False
    leaks: bool = True
    budget: float = BROWSER_BUDGET_MIB
    noise: float = 0.0
    unseen_peak: float = 0.0


def spread(chance: random.Random, mean: float, relative: float) -> float:
    """Return a lognormal draw of this mean and relative standard deviation."""
    variance = math.log(1 + relative**2)
    return chance.lognormvariate(math.log(mean) - variance / 2, math.sqrt(variance))


def browser(chance: random.Random, growth: float, peak: float = 350.0, relative: float = 0.03) -> Task:
    """A task with a browser: the page decides the peak, unless what is left is more."""
    return Task(growth, max(spread(chance, peak, relative), growth))


def plain(chance: random.Random, growth: float) -> Task:
    """A task in Python alone: 5 to 15 MiB while it runs, or what it leaves."""
    return Task(growth, max(chance.uniform(5, 15), growth))


def pareto(chance: random.Random, mean: float, shape: float = 2.2) -> float:
    """Return a Pareto draw of this mean."""
    return mean * (shape - 1) / shape * chance.paretovariate(shape)


def warm_up(place: int, total: float = 60.0, tasks: float = 8.0) -> float:
    """What the task at this place adds to a warm-up that levels off at `total` MiB."""
    return total * (math.exp(-place / tasks) - math.exp(-(place + 1) / tasks))


def two_names(chance: random.Random) -> Task:
    """Half the tasks leave 12 MiB, the others nothing; their names tell them apart."""
    leaky = chance.random() < 0.5
    return replace(
        browser(chance, spread(chance, 12, 0.3) if leaky else 0.0), name="leaky" if leaky else "clean"
    )


def shift(chance: random.Random, heavy: bool) -> Task:
    """One of two mixes of tasks."""
    if heavy:
        return replace(browser(chance, spread(chance, 12, 0.5), 380), name="heavy")
    return replace(browser(chance, spread(chance, 4, 0.5), 250), name="light")


def jump(chance: random.Random) -> float:
    """3 % of the tasks leave 120 MiB, the others 4."""
    return 120.0 if chance.random() < 0.03 else spread(chance, 4, 0.5)


WORLDS = (
    World("steady 8 MiB", lambda c, i, t: browser(c, 8 * c.uniform(0.9, 1.1))),
    World("lognormal 8 MiB", lambda c, i, t: browser(c, spread(c, 8, 1.0))),
    World("slow leak 2.5 MiB", lambda c, i, t: browser(c, spread(c, 2.5, 0.5))),
    World("warm-up, then 4 MiB", lambda c, i, t: browser(c, warm_up(i) + spread(c, 4, 0.5))),
    World("super-linear", lambda c, i, t: browser(c, 0.6 * (i + 1) * c.uniform(0.7, 1.3))),
    World("noisy, peaks half seen", lambda c, i, t: browser(c, spread(c, 8, 0.5)), noise=6, unseen_peak=0.1),
    World("two names, one leaks", lambda c, i, t: two_names(c)),
    World("plateau", lambda c, i, t: browser(c, warm_up(i) * c.uniform(0.8, 1.2)), leaks=False),
    World("noisy plateau", lambda c, i, t: browser(c, warm_up(i)), leaks=False, noise=6, unseen_peak=0.1),
    World("no leak", lambda c, i, t: browser(c, 0.0), leaks=False),
    World("wide peaks (6 %)", lambda c, i, t: browser(c, spread(c, 8, 0.5), relative=0.06), surprises=True),
    World("plain lognormal 8", lambda c, i, t: plain(c, spread(c, 8, 1.0)), True, budget=PLAIN_BUDGET_MIB),
    World("plain Pareto 2.2", lambda c, i, t: plain(c, pareto(c, 8)), True, budget=PLAIN_BUDGET_MIB),
    World("plain 3 % leave 120", lambda c, i, t: plain(c, jump(c)), True, budget=PLAIN_BUDGET_MIB),
    World("Pareto 2.2", lambda c, i, t: browser(c, pareto(c, 8)), True),
    World("3 % leave 120", lambda c, i, t: browser(c, jump(c)), True),
    World(
        "1 in 40 peaks at 500",
        lambda c, i, t: browser(c, spread(c, 3, 0.5), 500 if c.random() < 1 / 40 else 350, 0.01),
        True,
    ),
    World("shift to heavier", lambda c, i, t: shift(c, heavy=t >= 0.5), True),
    World("shift to lighter", lambda c, i, t: shift(c, heavy=t < 0.5), True),
)
