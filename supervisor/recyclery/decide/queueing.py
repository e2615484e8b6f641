"""How many containers a rate of arrivals needs: a queue before many slots (M/G/c, by Allen and Cunneen).

It is assumed that arrivals are independent of each other and of the tasks, that all containers take from one
queue, that a task takes as long as was measured with all slots of its container busy, and that long waits are
exponential. Tasks take less time in a container that is not busy, so the result errs on the safe side.
"""

import math
from collections.abc import Sequence

from msgspec import Struct

# A busier fleet would make bursts wait for long.
MAX_UTILISATION = 0.8
MOST_CONTAINERS = 1000
HALVINGS = 60
# With a smaller share of tasks waiting, more containers shorten nothing.
NOBODY_WAITS = 0.001
# So many of the times that tasks ran give their 95 % quantile.
MOST_TIMES = 400


class ContainerRates(Struct, frozen=True):
    """What one container does: tasks at a time, tasks per second at least, and how long they run."""

    slots: int
    per_second: float
    ran_seconds: Sequence[float]
    ran_variation: float


class Queue(Struct, frozen=True):
    """The wait of arrivals for a free slot."""

    waiting_share: float
    """The share of tasks that find no slot free."""
    wait_seconds: float
    """The mean over all tasks."""

    def passes(self, seconds: float) -> float:
        """Return the probability that a task waits longer."""
        if seconds < 0:
            return 1.0
        if not self.waiting_share:
            return 0.0
        return self.waiting_share * math.exp(-seconds * self.waiting_share / self.wait_seconds)


class Fleet(Struct, frozen=True):
    """A number of containers for a rate of arrivals, and what is expected of them."""

    containers: int
    arrivals_per_second: float
    busy_share: float
    wait_seconds: float
    """The mean."""
    p95_seconds: float
    """From a task's arrival to its end."""


def plan_fleet(
    arrivals_per_second: float,
    container: ContainerRates,
    *,
    slo_seconds: float | None = None,
    arrivals_variation: float = 1.0,
) -> Fleet | None:
    """Return the fewest containers that keep waits short, and the p95 within `slo_seconds` if it is given.

    `arrivals_variation` is the coefficient of variation of the time between arrivals, 1 where they come at
    random. None where no number of containers would do.
    """
    least = max(1, math.ceil(arrivals_per_second / (MAX_UTILISATION * container.per_second)))
    variation = (arrivals_variation**2 + container.ran_variation**2) / 2
    each_per_second = container.per_second / container.slots
    ordered = sorted(container.ran_seconds)
    ordered = ordered[:: math.ceil(len(ordered) / MOST_TIMES)]
    for count in range(least, least + MOST_CONTAINERS):
        busy = arrivals_per_second / (count * container.per_second)
        queue = join_queue(count * container.slots, busy, each_per_second, variation)
        p95 = response_quantile(queue, ordered, 0.95)
        if slo_seconds is None or p95 <= slo_seconds:
            return Fleet(count, arrivals_per_second, busy, queue.wait_seconds, p95)
        if queue.waiting_share < NOBODY_WAITS:
            return None
    return None


def join_queue(slots: int, busy_share: float, each_per_second: float, variation: float) -> Queue:
    """Return the queue: Erlang's C, and its mean wait times how much arrivals and tasks vary."""
    waiting = erlang_c(slots, busy_share)
    wait = waiting / (slots * each_per_second * (1 - busy_share)) * variation
    return Queue(waiting if variation else 0.0, wait)


def erlang_c(slots: int, busy_share: float) -> float:
    """Return the share of arrivals that find all slots taken (by Erlang's B, which is safe to iterate)."""
    offered = slots * busy_share
    blocked = 1.0
    for slot in range(1, slots + 1):
        blocked = offered * blocked / (slot + offered * blocked)
    return blocked / (1 - busy_share * (1 - blocked))


def response_quantile(queue: Queue, ordered: Sequence[float], share: float) -> float:
    """Return the time that this share of tasks does not exceed, wait and run together."""
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
