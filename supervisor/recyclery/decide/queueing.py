"""How many containers a rate of arrivals needs: a queue before many places (M/G/c, by Allen and Cunneen).

Assumed: arrivals are independent of each other and of the tasks (their variation may be told), all containers
take from one queue, a task's time is as measured with all places of its container busy, and long waits are
exponential. Taking it as measured when busy errs to the safe side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# No more of what a fleet can do is planned with: what comes in bursts would wait for long.
MOST_BUSY = 0.8
MOST_CONTAINERS = 1000
HALVINGS = 60
# Where so few wait, tasks alone take too long.
NOBODY = 0.001
# Of the times that tasks ran, as many as tell the 95 % quantile.
MOST_TIMES = 400


@dataclass(frozen=True, slots=True)
class Container:
    """What one does: so many tasks at a time, so many per second at least, and how long they run."""

    places: int
    per_second: float
    ran_seconds: Sequence[float]
    ran_variation: float


@dataclass(frozen=True, slots=True)
class Queue:
    """Arrivals at so many places, and what is waited for a place."""

    places: int
    busy_share: float
    waiting_share: float
    """The share of tasks that find no place free."""
    wait_seconds: float
    """The mean over all tasks."""

    def passes(self, seconds: float) -> float:
        """Return the chance that a task waits longer."""
        if seconds < 0:
            return 1.0
        if not self.waiting_share:
            return 0.0
        return self.waiting_share * math.exp(-seconds * self.waiting_share / self.wait_seconds)


@dataclass(frozen=True, slots=True)
class Fleet:
    """So many containers for a rate of arrivals, and what is to be expected of them."""

    containers: int
    arrivals_per_second: float
    busy_share: float
    wait_seconds: float
    """The mean."""
    p95_seconds: float
    """From a task's arrival to its end."""


def plan_fleet(
    arrivals_per_second: float,
    container: Container,
    *,
    slo_seconds: float | None = None,
    arrivals_variation: float = 1.0,
) -> Fleet | None:
    """Return the fewest containers that keep waits short, and the p95 within `slo_seconds` if it is given.

    `arrivals_variation` is the coefficient of variation of the time between arrivals, 1 where they come at
    random. None where no number of containers would do.
    """
    least = max(1, math.ceil(arrivals_per_second / (MOST_BUSY * container.per_second)))
    variation = (arrivals_variation**2 + container.ran_variation**2) / 2
    each_per_second = container.per_second / container.places
    ordered = sorted(container.ran_seconds)
    ordered = ordered[:: math.ceil(len(ordered) / MOST_TIMES)]
    for count in range(least, least + MOST_CONTAINERS):
        busy = arrivals_per_second / (count * container.per_second)
        queue = join_queue(count * container.places, busy, each_per_second, variation)
        p95 = response_quantile(queue, ordered, 0.95)
        if slo_seconds is None or p95 <= slo_seconds:
            return Fleet(count, arrivals_per_second, queue.busy_share, queue.wait_seconds, p95)
        if queue.waiting_share < NOBODY:
            return None
    return None


def join_queue(places: int, busy_share: float, each_per_second: float, variation: float) -> Queue:
    """Return the queue: Erlang's C, and its mean wait times how much arrivals and tasks vary."""
    waiting = erlang_c(places, busy_share)
    wait = waiting / (places * each_per_second * (1 - busy_share)) * variation
    return Queue(places, busy_share, waiting if variation else 0.0, wait)


def erlang_c(places: int, busy_share: float) -> float:
    """Return the share of arrivals that find all places taken (by Erlang's B, which is safe to iterate)."""
    offered = places * busy_share
    blocked = 1.0
    for place in range(1, places + 1):
        blocked = offered * blocked / (place + offered * blocked)
    return blocked / (1 - busy_share * (1 - blocked))


def response_quantile(queue: Queue, ordered: Sequence[float], share: float) -> float:
    """Return the time that this share of tasks does not pass, wait and run together."""
    low, high = 0.0, ordered[-1]
    while late_share(queue, ordered, high) > 1 - share:
        high *= 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        if late_share(queue, ordered, middle) > 1 - share:
            low = middle
        else:
            high = middle
    return high


def late_share(queue: Queue, ordered: Sequence[float], seconds: float) -> float:
    """Return the share of tasks that take longer than this, wait and run together."""
    return math.fsum(queue.passes(seconds - ran) for ran in ordered) / len(ordered)
