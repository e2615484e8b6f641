"""When a person is told, and when that it is well again."""

from dataclasses import replace

import pytest
from msgspec import structs

from recyclery.alerts.rules import (
    ALERT_KINDS,
    Alert,
    AlertState,
    Measurements,
    PoolMeasurements,
    Topic,
    count_slower,
    find_conditions,
    update_alerts,
)
from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Alerts
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally

AT_ONCE = Alerts(lasting_seconds=0.0)
NOTHING = TaskTally(since=0.0, succeeded=0, failed=0, retried=0, queues={})
WELL = PoolMeasurements("fast", PoolState.RUNNING, queue_depth=0, recent=NOTHING, recent_restarts=0)
CALM = Measurements(0.0, floor_bytes=50, limit_bytes=100, recent_oom_kills=0, parked=0, pools=(WELL,))


def told(*moments: Measurements, alerts: Alerts = AT_ONCE) -> list[Alert]:
    """Return all that is told over these moments."""
    standing: dict[Topic, AlertState] = {}
    lines = []
    for moment in moments:
        standing, news = update_alerts(standing, find_conditions(moment, alerts), moment.at)
        lines += news
    return lines


def topics(alerts: list[Alert]) -> list[tuple[str, str, bool]]:
    return [(*alert.topic, alert.firing) for alert in alerts]


def fast(**changes: object) -> Measurements:
    """All is well but for the pool."""
    return replace(CALM, pools=(replace(WELL, **changes),))  # type: ignore[arg-type]


def ran(*seconds: float, succeeded: int = 0, failed: int = 0, queue: str = "high") -> TaskTally:
    """A tally of tasks that ran so long."""
    places = [sum(bound < each for bound in SECONDS_BOUNDS) for each in seconds]
    counts = [places.count(place) for place in range(len(SECONDS_BOUNDS) + 1)]
    queues = {queue: QueueTally(counts=counts, seconds=sum(seconds))}
    return TaskTally(since=0.0, succeeded=succeeded, failed=failed, retried=0, queues=queues)


@pytest.mark.parametrize(
    ("topic", "bad"),
    [
        (("pool_down", "fast"), fast(state=PoolState.NOT_ANSWERING)),
        (("queue_depth", "fast"), fast(queue_depth=10)),
        (("task_failures", "fast"), fast(recent=ran(succeeded=56, failed=3))),
        (("slow_tasks", "high"), fast(recent=ran(*[1.0] * 56, 11.0, 12.0, 13.0))),
        (("slow_tasks", "default"), fast(recent=ran(301.0, 400.0, 7000.0, queue="default"))),
        (("restarts", "fast"), fast(recent_restarts=3)),
        (("memory", ""), replace(CALM, floor_bytes=92)),
        (("oom_kills", ""), replace(CALM, recent_oom_kills=1)),
        (("parked", ""), replace(CALM, parked=1)),
    ],
)
def test_what_is_amiss_is_told_once_and_once_that_it_is_well(topic: tuple[str, str], bad: Measurements) -> None:
    assert topics(told(CALM, bad, bad, CALM, CALM)) == [(*topic, True), (*topic, False)]
    assert topic[0] in ALERT_KINDS


@pytest.mark.parametrize(
    "fine",
    [
        CALM,
        fast(state=PoolState.DRAINING, queue_depth=9),
        fast(queue_depth=None),
        fast(recent=ran(succeeded=57, failed=3)),
        fast(recent=ran(succeeded=0, failed=2)),
        fast(recent=ran(*[1.0] * 57, 11.0, 12.0, 13.0)),
        fast(recent=ran(11.0, 12.0)),
        fast(recent=ran(*[9000.0] * 9, queue="low")),
        fast(recent_restarts=2),
        replace(CALM, floor_bytes=91),
    ],
)
def test_below_its_bound_and_unknown_nothing_is_told(fine: Measurements) -> None:
    assert told(fine, fine) == []


def test_an_alert_is_sent_only_when_it_has_lasted_and_so_is_its_end() -> None:
    bad = fast(queue_depth=50)
    alerts = Alerts(lasting_seconds=60.0)
    moments = [
        *(replace(bad, at=0.0), replace(CALM, at=30.0), replace(bad, at=40.0), replace(bad, at=99.0)),
        *(replace(bad, at=100.0), replace(CALM, at=110.0), replace(bad, at=120.0), replace(CALM, at=130.0)),
        *(replace(CALM, at=189.0), replace(CALM, at=190.0)),
    ]
    counts = [len(told(*moments[: count + 1], alerts=alerts)) for count in range(len(moments))]
    assert counts == [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]


def test_what_swings_around_its_bound_is_told_once() -> None:
    moments = [fast(queue_depth=depth) for depth in (10, 9, 10, 9, 10, 9)]
    assert topics(told(*moments)) == [("queue_depth", "fast", True)]


def test_a_depth_that_is_not_known_any_more_leaves_the_alert_standing() -> None:
    assert topics(told(fast(queue_depth=10), fast(queue_depth=None))) == [("queue_depth", "fast", True)]


@pytest.mark.parametrize("key", ["queue_depth", "success_percent", "memory_percent", "restarts"])
def test_zero_turns_a_thing_off_and_what_stood_of_it_is_told_as_no_longer_watched(key: str) -> None:
    worst = replace(
        fast(queue_depth=1000, recent=ran(failed=100), recent_restarts=100), floor_bytes=100, limit_bytes=100
    )
    off = structs.replace(AT_ONCE, **{key: 0})
    standing, before = update_alerts({}, find_conditions(worst, AT_ONCE), 0.0)
    _, news = update_alerts(standing, find_conditions(worst, off), 1.0)
    assert len(before) == 4
    assert [(alert.firing, alert.text) for alert in news] == [(False, "no longer watched")]


def test_how_many_took_longer_is_exact_at_the_tallys_own_bounds_and_in_between_shared_out() -> None:
    tally = QueueTally(counts=[4, 0, 0, 0, 0, 10, *[0] * 7, 3], seconds=0.0)
    assert [count_slower(tally, seconds) for seconds in (0.1, 5.0, 7.5, 10.0, 9000.0)] == [13, 13, 8, 3, 3]
