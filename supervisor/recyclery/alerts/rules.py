"""Alert rules: each fires when its condition has lasted long enough, and resolves likewise.

The bound for resolving is below that for firing, so a value that swings around a bound fires once.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

from recyclery.common.pool_state import PoolState
from recyclery.common.units import format_mib
from recyclery.config.settings import Alerts
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally

# A value resolves below this share of its bound.
RESOLVE_SHARE = 0.9
# Fewer failed or slow tasks make no rate.
MIN_TASKS_FOR_RATE = 3
# The share of a queue's tasks that may be slow.
SLOW_PERCENT = 5
ALERT_KINDS = (
    "pool_down",
    "queue_depth",
    "task_failures",
    "slow_tasks",
    "memory",
    "oom_kills",
    "restarts",
    "parked",
)
# Tasks already fail or wait.
URGENT = frozenset({"pool_down", "memory", "oom_kills"})


class Topic(NamedTuple):
    """What an alert is about; `subject` is a pool, a queue or empty."""

    kind: str
    subject: str


@dataclass(frozen=True, slots=True)
class PoolMeasurements:
    """One pool's input of the rules; `recent` figures are those of the window."""

    name: str
    state: PoolState
    queue_depth: int | None
    recent: TaskTally
    recent_restarts: int


@dataclass(frozen=True, slots=True)
class Measurements:
    """The input of the rules at one moment of CLOCK_BOOTTIME."""

    at: float
    floor_bytes: int
    limit_bytes: int
    recent_oom_kills: int
    parked: int
    pools: tuple[PoolMeasurements, ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """A rule's result; neither `fires` nor `resolves` between the bounds, or where the value is unknown."""

    topic: Topic
    fires: bool
    resolves: bool
    text: str
    lasting_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class AlertState:
    """Whether an alert fires, and since when its condition says otherwise."""

    firing: bool = False
    changing_since: float | None = None


@dataclass(frozen=True, slots=True)
class Alert:
    """A message to send: the alert fires or resolves."""

    topic: Topic
    firing: bool
    text: str


def update_alerts(
    states: Mapping[Topic, AlertState], conditions: tuple[Condition, ...], at: float
) -> tuple[dict[Topic, AlertState], list[Alert]]:
    """Return the states after these conditions, and the alerts to send."""
    updated: dict[Topic, AlertState] = {}
    alerts: list[Alert] = []
    for condition in conditions:
        before = states.get(condition.topic, AlertState())
        after = update_alert(before, condition, at)
        if after.firing != before.firing:
            alerts.append(Alert(condition.topic, after.firing, condition.text))
        if after.firing or after.changing_since is not None:
            updated[condition.topic] = after
    evaluated = {condition.topic for condition in conditions}
    alerts += [
        Alert(topic, firing=False, text="no longer watched")
        for topic, state in states.items()
        if state.firing and topic not in evaluated
    ]
    return updated, alerts


def update_alert(before: AlertState, condition: Condition, at: float) -> AlertState:
    if not (condition.resolves if before.firing else condition.fires):
        return replace(before, changing_since=None)
    since = at if before.changing_since is None else before.changing_since
    if at - since >= condition.lasting_seconds:
        return AlertState(not before.firing)
    return replace(before, changing_since=since)


def find_conditions(measurements: Measurements, alerts: Alerts) -> tuple[Condition, ...]:
    """Return the results of all rules; a bound of 0 switches a rule off."""
    found = [*container_conditions(measurements, alerts)]
    for pool in measurements.pools:
        found += (*pool_conditions(pool, alerts), *queue_conditions(pool, alerts))
    return tuple(found)


def container_conditions(measurements: Measurements, alerts: Alerts) -> Iterator[Condition]:
    """Yield the results for memory, OOM kills and parked tasks."""
    kills, parked = measurements.recent_oom_kills, measurements.parked
    floor, limit = measurements.floor_bytes, measurements.limit_bytes
    if alerts.memory_percent:
        percent = 100 * floor / max(1, limit)
        text = f"{format_mib(floor)} of {format_mib(limit)} cannot be reclaimed, {percent:.0f} %"
        yield above(Topic("memory", ""), percent, alerts.memory_percent, text, alerts)
    yield at_once("oom_kills", "", kills, 1, f"the kernel killed {kills} processes for want of memory lately")
    yield at_once("parked", "", parked, 1, f"{parked} tasks are parked: `recyclery parked list` shows them")


def pool_conditions(pool: PoolMeasurements, alerts: Alerts) -> Iterator[Condition]:
    """Yield the results for one pool's state, queue depth, failures and restarts."""
    name, up = pool.name, pool.state.is_up
    text = f"{name} is {pool.state}"
    yield Condition(Topic("pool_down", name), not up, up, text, alerts.lasting_seconds)
    if alerts.queue_depth:
        depth = pool.queue_depth
        text = f"{name}: {depth} tasks wait"
        yield above(Topic("queue_depth", name), depth, alerts.queue_depth, text, alerts)
    if alerts.success_percent:
        # A retry is neither success nor failure.
        failed, ended = pool.recent.failed, pool.recent.succeeded + pool.recent.failed
        percent = 100 * pool.recent.succeeded / ended if ended else 100.0
        yield Condition(
            Topic("task_failures", name),
            fires=failed >= MIN_TASKS_FOR_RATE and percent < alerts.success_percent,
            resolves=percent >= min((alerts.success_percent + 100) / 2, alerts.success_percent + 1),
            text=f"{name}: {failed} of {ended} tasks failed in {alerts.window_seconds:g} s",
        )
    if alerts.restarts:
        count = pool.recent_restarts
        text = f"{name} died or hung {count} times in {alerts.window_seconds:g} s and was started anew"
        yield at_once("restarts", name, count, alerts.restarts, text)


def queue_conditions(pool: PoolMeasurements, alerts: Alerts) -> Iterator[Condition]:
    """Yield the results for each queue's slow tasks."""
    for queue, bound in alerts.task_seconds.items():
        tally = pool.recent.queues.get(queue)
        if not bound or tally is None:
            continue
        count, slow = sum(tally.counts), count_slower(tally, bound)
        percent = 100 * slow / count if count else 0.0
        yield Condition(
            Topic("slow_tasks", queue),
            fires=slow >= MIN_TASKS_FOR_RATE and percent > SLOW_PERCENT,
            resolves=percent <= RESOLVE_SHARE * SLOW_PERCENT,
            text=f"{queue}: {round(slow)} of {count} tasks took longer than {bound:g} s",
        )


def above(topic: Topic, value: float | None, bound: float, text: str, alerts: Alerts) -> Condition:
    """Return the result of a rule that fires at a bound; a `value` of None is unknown."""
    fires = value is not None and value >= bound
    resolves = value is not None and value < RESOLVE_SHARE * bound
    return Condition(topic, fires, resolves, text, alerts.lasting_seconds)


def at_once(kind: str, subject: str, count: int, bound: int, text: str) -> Condition:
    """Return the result of a rule that fires without delay and resolves at a count of 0."""
    return Condition(Topic(kind, subject), count >= bound, count == 0, text)


def count_slower(tally: QueueTally, seconds: float) -> float:
    """Return how many tasks took longer, taking those of a histogram bucket to be spread evenly in it."""
    return tally.counts[-1] + sum(
        count * min(1.0, max(0.0, (high - seconds) / (high - low)))
        for (low, high), count in zip(pairwise((0.0, *SECONDS_BOUNDS)), tally.counts, strict=False)
    )
