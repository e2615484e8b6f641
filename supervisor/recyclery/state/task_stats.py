"""Totals of the pools' finished tasks and worker restarts, over all workers that a pool had."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from recyclery.observe.snapshot import Snapshot
from recyclery_worker.link import SECONDS_BOUNDS, QueueTally, TaskTally, WorkerStat

NO_SECONDS = QueueTally(counts=[0] * (len(SECONDS_BOUNDS) + 1), seconds=0.0)
NO_TASKS = TaskTally(since=0.0, succeeded=0, failed=0, retried=0, queues={})
# A worker without a report for this long is taken to be gone.
FORGET_SECONDS = 3600.0


@dataclass
class TaskTotals:
    """Totals since the governor's start: Prometheus handles counters that a restart resets."""

    since: float
    tasks: dict[str, TaskTally] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    """Starts of a pool's worker after its first, without replacements."""
    _reports: dict[tuple[str, int], tuple[float, TaskTally]] = field(default_factory=dict)
    _mains: dict[str, int] = field(default_factory=dict)
    _starts: dict[str, int] = field(default_factory=dict)

    def update(
        self, snapshot: Snapshot, stats: Iterable[WorkerStat], recycles: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Add what is new in the workers' reports and main processes."""
        for stat in stats:
            if stat.tasks is not None:
                self._add(stat, stat.tasks)
        reports, at = self._reports.items(), snapshot.at
        self._reports = {worker: report for worker, report in reports if at - report[0] < FORGET_SECONDS}
        for view in snapshot.pools:
            if view.pid is not None and view.pid != self._mains.get(view.name):
                self._mains[view.name] = view.pid
                self._starts[view.name] = self._starts.get(view.name, 0) + 1
            unexplained = self._starts.get(view.name, 0) - 1 - recycles.get(view.name, {}).get("replace", 0)
            # A replacement is counted before its worker starts, so the difference may fall; the total does not.
            self.restarts[view.name] = max(0, unexplained, self.restarts.get(view.name, 0))

    def _add(self, stat: WorkerStat, reported: TaskTally) -> None:
        worker = stat.pool, stat.pid
        first = NO_TASKS if reported.since >= self.since else reported
        _, before = self._reports.get(worker, (0.0, first))
        self._reports[worker] = stat.sent, reported
        self.tasks[stat.pool] = combine(self.tasks.get(stat.pool, NO_TASKS), minus(reported, before), 1)


def minus(later: TaskTally, earlier: TaskTally) -> TaskTally:
    """Return the difference of two tallies."""
    return combine(later, earlier, -1)


def combine(one: TaskTally, other: TaskTally, sign: int) -> TaskTally:
    """Return `one + sign * other`."""
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
    """Return `one + sign * other`."""
    return QueueTally(
        counts=[mine + sign * theirs for mine, theirs in zip(one.counts, other.counts, strict=True)],
        seconds=one.seconds + sign * other.seconds,
    )
