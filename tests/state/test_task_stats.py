"""What is counted over all workers that a pool had."""

from recyclery.common.pool_state import PoolState
from recyclery.observe.snapshot import PoolView
from recyclery.state.task_stats import TaskTotals
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally, WorkerStat
from support.snapshots import AT, snapshot

BEGAN = 50.0


def word(pid: int, succeeded: int, since: float = 60.0, sent: float = AT) -> WorkerStat:
    """A worker's word after so many tasks, each of half a second or less."""
    counts = [0, succeeded, *[0] * (len(SECONDS_BOUNDS) - 1)]
    tally = TaskTally(
        since=since,
        succeeded=succeeded,
        failed=1,
        retried=0,
        queues={"low": QueueTally(counts=counts, seconds=succeeded / 2)},
    )
    return WorkerStat(
        pool="slow",
        pid=pid,
        node="slow@here",
        concurrency=1,
        max_tasks_per_child=10,
        retires=True,
        lack="",
        children=[],
        departures=[],
        sent=sent,
        tasks=tally,
    )


def test_a_pools_tasks_go_on_being_counted_over_its_workers() -> None:
    tallies = TaskTotals(since=BEGAN)
    for stat in (word(10, 3), word(10, 5), word(11, 2)):
        tallies.update(snapshot(), [stat], {})
    slow = tallies.tasks["slow"]
    assert (slow.succeeded, slow.failed, slow.queues["low"].seconds) == (7, 2, 3.5)
    assert sum(slow.queues["low"].counts) == 7


def test_two_workers_of_a_pool_at_once_are_both_counted() -> None:
    tallies = TaskTotals(since=BEGAN)
    for stats in ([word(10, 3)], [word(11, 1)], [word(10, 4)], [word(11, 2)]):
        tallies.update(snapshot(), stats, {})
    assert tallies.tasks["slow"].succeeded == 6


def test_what_a_worker_did_before_this_governor_began_is_not_counted_anew() -> None:
    tallies = TaskTotals(since=BEGAN)
    for stat in (word(10, 1000, since=1.0), word(10, 1001, since=1.0)):
        tallies.update(snapshot(), [stat], {})
    assert tallies.tasks["slow"].succeeded == 1


def test_a_start_that_no_replacement_explains_is_a_restart() -> None:
    tallies = TaskTotals(since=BEGAN)
    seen = []
    # By us the second start is counted before it is seen.
    for pid, replaced in ((None, 0), (10, 0), (10, 1), (11, 1), (None, 1), (12, 1), (12, 2), (13, 2)):
        view = PoolView("slow", PoolState.RUNNING, pid)
        tallies.update(snapshot(pools=(view,)), [], {"slow": {"replace": replaced}})
        seen.append(tallies.restarts["slow"])
    assert seen == [0, 0, 0, 0, 0, 1, 1, 1]
