"""Readings made by hand: two pools, of which slow has a child with a browser and tasks behind it."""

from dataclasses import replace

from recyclery.config.settings import Settings
from recyclery.decide.policy_state import Counters
from recyclery.http.metrics import Readings
from recyclery.observe.snapshot import Snapshot
from recyclery.state.task_stats import TaskTotals
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally
from support.snapshots import ANSWERED, SETTINGS, board, child, process, slow_view, snapshot

PLACES = len(SECONDS_BOUNDS) + 1


def tally(**queues: int) -> TaskTally:
    """So many tasks of each queue, all well within a tenth of a second, and three others that were not."""
    return TaskTally(
        since=0.0,
        succeeded=sum(queues.values()),
        failed=2,
        retried=1,
        queues={
            queue: QueueTally(counts=[count, *[0] * (PLACES - 1)], seconds=count / 10)
            for queue, count in queues.items()
        },
    )


def readings(seen: Snapshot | None = None, settings: Settings = SETTINGS) -> Readings:
    """One moment."""
    running = child(process(30, mib=200), mib=60, task_id="a", task_name="scrape")
    seen = seen or snapshot(running, pools=(slow_view(queue_depth=None, vitals=ANSWERED),))
    known = board(settings)
    known.task_stats = TaskTotals(since=0.0, tasks={"slow": tally(low=7, strange=1)}, restarts={"slow": 1})
    counters = Counters(reaped=4, parked=1).with_recycle("slow", "replace")
    known.ledger.state = replace(known.ledger.state, counters=counters)
    return Readings(
        at=seen.at + 0.5,
        board=known,
        snapshot=replace(seen, container=replace(seen.container, oom_kills=2)),
        depths={"fast": None, "slow": 12},
        governor_bytes=30 << 20,
        alerts_firing={"queue_depth": 1, "parked": 0},
        alerts_dropped=0,
    )
