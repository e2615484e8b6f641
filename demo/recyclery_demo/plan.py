"""The storm before it is sent: which tasks, what each leaves behind, when each light task is due."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

PINGS_PER_SECOND = 5.0
_MIB = 1 << 20


@dataclass(frozen=True)
class Mix:
    """What the scraping tasks of a storm do beside scraping; a share is of all of them, from 0 to 1.

    forget_share  leave their browser running
    leave_bytes   memory left in the pool child by each of leave_share of those after leave_after of the storm
    take_bytes    memory taken for a moment and given back, by take_share of them
    cache_bytes   the plateau to which every pool child grows over its first tasks
    share_bytes   memory that every task holds and shares with six forked processes for a moment
    file_bytes    memory that every task leaves in a file without a name that it keeps open
    """

    text: str
    forget_share: float = 0.0
    leave_bytes: int = 0
    leave_share: float = 1.0
    leave_after: float = 0.0
    take_bytes: int = 0
    take_share: float = 0.0
    cache_bytes: int = 0
    share_bytes: int = 0
    file_bytes: int = 0


MIXES = {
    "browsers": Mix(
        "30 % forget their browser, every task leaves 5 MiB", forget_share=0.30, leave_bytes=5 * _MIB
    ),
    "steady": Mix("every task leaves 8 MiB", leave_bytes=8 * _MIB),
    "rare": Mix("3 % of the tasks leave 120 MiB", leave_bytes=120 * _MIB, leave_share=0.03),
    "steps": Mix(
        "one task in 40 takes 500 MiB for half a second, after its browser has quit",
        take_bytes=500 * _MIB,
        take_share=1 / 40,
    ),
    "warmup": Mix("every child grows by 60 MiB over its first 6 tasks, no leak", cache_bytes=60 * _MIB),
    "shift": Mix(
        "first no leak, from half-way on every task leaves 20 MiB", leave_bytes=20 * _MIB, leave_after=0.5
    ),
    "clean": Mix("no leak"),
    "forks": Mix("every task shares 120 MiB with six forked processes, no leak", share_bytes=120 * _MIB),
    "tmpfs": Mix("every task leaves 60 MiB in a deleted file", file_bytes=60 * _MIB),
}


@dataclass(frozen=True)
class Scrape:
    """One scraping task: whether it forgets its browser, and what it does with its worker's memory."""

    number: int
    forget: bool
    leave_bytes: int
    take_bytes: int
    cache_bytes: int
    share_bytes: int
    file_bytes: int


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


def plan_storm(mix: Mix, tasks: int, fast_tasks: int, seed: int) -> StormPlan:
    """Return the storm of this seed: exact shares of the tasks, light tasks at an even pace."""
    chance = random.Random(seed)  # noqa: S311 - a repeatable draw, not a secret
    numbers = range(tasks)
    forgetting = set(chance.sample(numbers, round(tasks * mix.forget_share)))
    leaving = _draw(chance, numbers[int(tasks * mix.leave_after) :], mix.leave_share)
    taking = _draw(chance, numbers, mix.take_share)
    scrapes = tuple(
        Scrape(
            number,
            forget=number in forgetting,
            leave_bytes=mix.leave_bytes if number in leaving else 0,
            take_bytes=mix.take_bytes if number in taking else 0,
            cache_bytes=mix.cache_bytes,
            share_bytes=mix.share_bytes,
            file_bytes=mix.file_bytes,
        )
        for number in numbers
    )
    pings = tuple(Ping(number, number / PINGS_PER_SECOND) for number in range(fast_tasks))
    return StormPlan(scrapes, pings)


def _draw(chance: random.Random, numbers: Sequence[int], share: float) -> set[int]:
    """Draw a share of the numbers, but at least one: a small storm is to have its rare task too."""
    return set(chance.sample(numbers, max(1, round(len(numbers) * share)))) if share else set()


def describe_habit(mix: Mix, plan: StormPlan) -> str:
    """Say in a few words what this plan's tasks do beside scraping."""
    forgetting = sum(scrape.forget for scrape in plan.scrapes)
    return f"{forgetting} of them forget their browser" if mix.forget_share else mix.text
