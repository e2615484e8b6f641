"""The storm before it is sent: which tasks, which of them leak, when each light task is due."""

import random
from dataclasses import dataclass

PINGS_PER_SECOND = 5.0


@dataclass(frozen=True)
class Scrape:
    """One scraping task: whether it forgets its browser, and the memory it leaves in its worker."""

    number: int
    forget: bool
    leave_bytes: int


@dataclass(frozen=True)
class Ping:
    """One light task and the second of the storm at which it is due."""

    number: int
    due_seconds: float


@dataclass(frozen=True)
class StormPlan:
    """Everything a storm sends."""

    scrapes: tuple[Scrape, ...]
    pings: tuple[Ping, ...]


def plan_storm(tasks: int, leak_share: float, leave_bytes: int, fast_tasks: int, seed: int) -> StormPlan:
    """Return the storm of this seed: an exact share of leaking tasks, light tasks at an even pace."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable draw, not a secret
    leaking = set(chance.sample(range(tasks), round(tasks * leak_share)))
    scrapes = tuple(
        Scrape(number, forget=number in leaking, leave_bytes=leave_bytes) for number in range(tasks)
    )
    pings = tuple(Ping(number, number / PINGS_PER_SECOND) for number in range(fast_tasks))
    return StormPlan(scrapes, pings)
