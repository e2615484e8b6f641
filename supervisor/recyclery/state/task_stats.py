"""What came of the pools' tasks, and how often their workers started anew, over all workers a pool had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recyclery.observe.snapshot import Snapshot
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally, WorkerStat

NO_SECONDS = QueueTally(counts=[0] * (len(SECONDS_BOUNDS) + 1), seconds=0.0)
NO_TASKS = TaskTally(since=0.0, succeeded=0, failed=0, retried=0, queues={})
# A worker that has not spoken for so long speaks no more.
FORGET_SECONDS = 3600.0


@dataclass
class TaskStats:
    """Counted from `since` on: what a worker did before this governor began is not the governor's to tell.

    Counters that begin anew at a restart, as ours do, are taken for new counts by whoever reads them.
    """

    since: float
    tasks: dict[str, TaskTally] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    """Starts of a pool's worker after its first that were no replacement."""
    _words: dict[tuple[str, int], tuple[float, TaskTally]] = field(default_factory=dict)
    _mains: dict[str, int] = field(default_factory=dict)
    _starts: dict[str, int] = field(default_factory=dict)

    def update(
        self, snapshot: Snapshot, stats: Iterable[WorkerStat], recycles: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Add what is new in the workers' words and in the list of their main processes."""
        for stat in stats:
            if stat.tasks is not None:
                self._add(stat, stat.tasks)
        self._words = {
            worker: word for worker, word in self._words.items() if snapshot.at - word[0] < FORGET_SECONDS
        }
        for view in snapshot.pools:
            if view.pid is not None and view.pid != self._mains.get(view.name):
                self._mains[view.name] = view.pid
                self._starts[view.name] = self._starts.get(view.name, 0) + 1
            unexplained = self._starts.get(view.name, 0) - 1 - recycles.get(view.name, {}).get("replace", 0)
            # A replacement is counted before its worker has started: what was counted stays.
            self.restarts[view.name] = max(0, unexplained, self.restarts.get(view.name, 0))

    def _add(self, stat: WorkerStat, told: TaskTally) -> None:
        worker = stat.pool, stat.pid
        first = NO_TASKS if told.since >= self.since else told
        _, before = self._words.get(worker, (0.0, first))
        self._words[worker] = stat.sent, told
        self.tasks[stat.pool] = plus(self.tasks.get(stat.pool, NO_TASKS), minus(told, before))


def plus(one: TaskTally, other: TaskTally) -> TaskTally:
    """Return both counts together."""
    return combine(one, other, 1)


def minus(later: TaskTally, earlier: TaskTally) -> TaskTally:
    """Return what was counted between the two."""
    return combine(later, earlier, -1)


def combine(one: TaskTally, other: TaskTally, sign: int) -> TaskTally:
    """Return one, and the other as often as `sign` says."""
    return TaskTally(
        since=one.since,
        succeeded=one.succeeded + sign * other.succeeded,
        failed=one.failed + sign * other.failed,
        retried=one.retried + sign * other.retried,
        queues={
            queue: combine_queue(one.queues.get(queue, NO_SECONDS), other.queues.get(queue, NO_SECONDS), sign)
            for queue in {**one.queues, **other.queues}
        },
    )


def combine_queue(one: QueueTally, other: QueueTally, sign: int) -> QueueTally:
    """Return one, and the other as often as `sign` says."""
    return QueueTally(
        counts=[mine + sign * theirs for mine, theirs in zip(one.counts, other.counts, strict=True)],
        seconds=one.seconds + sign * other.seconds,
    )
