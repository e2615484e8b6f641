"""What a person is to be woken for: when something is amiss for long enough, and when it is well again.

Between amiss and well there is a gap, and either has to last: what swings around a bound is told once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Alerts
from recyclery.decide.budget import mib
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally

# What was above its bound is well again below this share of it.
RESOLVE_SHARE = 0.9
# One task or two that failed, or took long, are no rate.
MIN_TASKS_FOR_RATE = 3
# Of the tasks of a queue so many may take longer than they should.
SLOW_PERCENT = 5
KINDS = ("pool_down", "queue_depth", "task_failures", "slow_tasks", "memory", "oom_kills", "restarts", "parked")
URGENT = frozenset({"pool_down", "memory", "oom_kills"})


class Topic(NamedTuple):
    """What an alert is about: the same one is told once. `subject`: a pool, a queue, or ""."""

    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class PoolMeasurements:
    """How one pool is; what is recent is of the window."""

    name: str
    state: PoolState
    queue_depth: int | None
    recent: TaskTally
    recent_restarts: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """How all is at one moment of the boot's clock."""

    at: float
    floor_bytes: int
    limit_bytes: int
    recent_oom_kills: int
    parked: int
    pools: tuple[PoolMeasurements, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that was looked at. Neither amiss nor well: between the bounds, or not known now."""

    topic: Topic
    amiss: bool
    well: bool
    text: str
    lasting_seconds: float


@dataclass(frozen=True, slots=True)
class AlertState:
    """What is known of a topic that is not simply well. `turning`: since when it is not as `firing` says."""

    firing: bool
    turning: float | None


@dataclass(frozen=True, slots=True)
class Alert:
    """What is to be told: it fires, or it is well again."""

    topic: Topic
    firing: bool
    text: str

    @property
    def is_urgent(self) -> bool:
        """Whether tasks fail or wait now, and not only soon."""
        return self.topic.kind in URGENT


def update_alerts(
    standing: Mapping[Topic, AlertState], conditions: tuple[Condition, ...], at: float
) -> tuple[dict[Topic, AlertState], list[Alert]]:
    """Return how things stand after these conditions, and what is to be told of it."""
    stands: dict[Topic, AlertState] = {}
    alerts: list[Alert] = []
    for condition in conditions:
        before = standing.get(condition.topic, AlertState(firing=False, turning=None))
        after = turn(before, condition, at)
        if after.firing != before.firing:
            alerts.append(Alert(condition.topic, after.firing, condition.text))
        if after.firing or after.turning is not None:
            stands[condition.topic] = after
    looked_at = {condition.topic for condition in conditions}
    alerts += [
        Alert(topic, firing=False, text="no longer watched")
        for topic, left in standing.items()
        if left.firing and topic not in looked_at
    ]
    return stands, alerts


def turn(before: AlertState, condition: Condition, at: float) -> AlertState:
    """Return how a topic stands after one condition."""
    turns = condition.well if before.firing else condition.amiss
    if not turns:
        return replace(before, turning=None)
    since = at if before.turning is None else before.turning
    if at - since >= condition.lasting_seconds:
        return AlertState(firing=not before.firing, turning=None)
    return replace(before, turning=since)


def find_conditions(vitals: Measurements, alerts: Alerts) -> tuple[Condition, ...]:
    """Return everything that is watched, as it is now; what is set to 0 is not watched."""
    found = [*container_conditions(vitals, alerts)]
    for pool in vitals.pools:
        found += pool_conditions(pool, alerts)
        found += queue_conditions(pool, alerts)
    return tuple(found)


def container_conditions(vitals: Measurements, alerts: Alerts) -> Iterator[Condition]:
    """Memory, and what became of it; parked tasks."""
    kills, parked, lasting = vitals.recent_oom_kills, vitals.parked, alerts.lasting_seconds
    if alerts.memory_percent:
        percent = 100 * vitals.floor_bytes / max(1, vitals.limit_bytes)
        text = f"{mib(vitals.floor_bytes)} of {mib(vitals.limit_bytes)} cannot be reclaimed, {percent:.0f} %"
        yield above("memory", "", percent, alerts.memory_percent, text=text, lasting_seconds=lasting)
    yield at_once("oom_kills", "", kills, 1, f"the kernel killed {kills} processes for want of memory lately")
    yield at_once("parked", "", parked, 1, f"{parked} tasks are parked: `recyclery parked list` shows them")


def pool_conditions(pool: PoolMeasurements, alerts: Alerts) -> Iterator[Condition]:
    """One pool: whether it works, what waits for it, what becomes of its tasks."""
    name, recent, lasting = pool.name, pool.recent, alerts.lasting_seconds
    down = not pool.state.is_up
    yield Condition(Topic("pool_down", name), down, not down, f"{name} is {pool.state}", lasting)
    if alerts.queue_depth:
        depth = pool.queue_depth
        text = f"{name}: {depth} tasks wait"
        yield above("queue_depth", name, depth, alerts.queue_depth, text=text, lasting_seconds=lasting)
    if alerts.success_percent:
        yield failure_condition(name, recent, alerts)
    if alerts.restarts:
        count = pool.recent_restarts
        text = f"{name} died or hung {count} times in {alerts.window_seconds:g} s and was started anew"
        yield at_once("restarts", name, count, alerts.restarts, text)


def failure_condition(name: str, recent: TaskTally, alerts: Alerts) -> Condition:
    """Whether too few of a pool's tasks succeed; a retry is neither."""
    ended = recent.succeeded + recent.failed
    percent = 100 * recent.succeeded / ended if ended else 100.0
    enough = (alerts.success_percent + 100) / 2
    return Condition(
        Topic("task_failures", name),
        amiss=recent.failed >= MIN_TASKS_FOR_RATE and percent < alerts.success_percent,
        well=percent >= min(enough, alerts.success_percent + 1),
        text=f"{name}: {recent.failed} of {ended} tasks failed in {alerts.window_seconds:g} s",
        lasting_seconds=0.0,
    )


def queue_conditions(pool: PoolMeasurements, alerts: Alerts) -> Iterator[Condition]:
    """Whether tasks of a queue take longer than they should."""
    for queue, bound in alerts.task_seconds.items():
        tally = pool.recent.queues.get(queue)
        if not bound or tally is None:
            continue
        count, slow = sum(tally.counts), count_slower(tally, bound)
        percent = 100 * slow / count if count else 0.0
        yield Condition(
            Topic("slow_tasks", queue),
            amiss=slow >= MIN_TASKS_FOR_RATE and percent > SLOW_PERCENT,
            well=percent <= RESOLVE_SHARE * SLOW_PERCENT,
            text=f"{queue}: {round(slow)} of {count} tasks took longer than {bound:g} s",
            lasting_seconds=0.0,
        )


def above(
    kind: str, subject: str, value: float | None, bound: float, *, text: str, lasting_seconds: float
) -> Condition:
    """Return the condition of a value that is amiss from its bound on; None: not known."""
    amiss = value is not None and value >= bound
    well = value is not None and value < RESOLVE_SHARE * bound
    return Condition(Topic(kind, subject), amiss, well, text, lasting_seconds)


def at_once(kind: str, subject: str, count: int, bound: int, text: str) -> Condition:
    """Return the condition of a count that is told at once, and is well when nothing of it is left."""
    return Condition(
        Topic(kind, subject), amiss=count >= bound, well=count == 0, text=text, lasting_seconds=0.0
    )


def count_slower(tally: QueueTally, seconds: float) -> float:
    """Return how many tasks took longer, spread evenly within each place of the tally."""
    slow = 0.0
    for (low, high), count in zip(pairwise((0.0, *SECONDS_BOUNDS)), tally.counts, strict=False):
        slow += count * min(1.0, max(0.0, (high - seconds) / (high - low)))
    return slow + tally.counts[-1]
