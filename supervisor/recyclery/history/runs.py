"""Tracks each child through its tasks and returns a `RunRecord` for every run that has ended.

There are two sources. The child's report at the end of a task has its Python and shared memory at that very
moment, however soon the next task begins. The governor's snapshots have its browsers, its other programs, and
the peaks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from recyclery.history.records import Parts, RunRecord, parts_of
from recyclery.observe.snapshot import Child, Owner, Process, Snapshot
from recyclery_worker.link import ChildReport

# If several tasks ended between two snapshots, a smaller change of their browsers' memory counts as none.
UNCHANGED_BYTES = 1 << 20


@dataclass
class TrackedChild:
    """What is known of one child."""

    owner: Owner
    tasks_done: int
    idle: Parts | None = None
    """The last known idle memory, from a snapshot or a report."""
    peak: Parts = field(default_factory=Parts)
    task: str | None = None
    begun: float | None = None
    ended_task: str | None = None
    waiting: list[RunRecord] = field(default_factory=list)
    """Runs that ended since the last snapshot; the next one shows which browsers they left."""

    def end_run(
        self, tasks: dict[str, int], ended: float, after: Parts | None, outcome: str = "done"
    ) -> RunRecord:
        """Return the present run as ended, with browsers not measured yet."""
        return RunRecord(
            owner=self.owner,
            tasks=tasks,
            place=self.tasks_done,
            ended=ended,
            seconds=max(0.0, ended - self.begun) if self.begun is not None else 0.0,
            before=self.idle,
            peak=larger(self.peak, after),
            after=after,
            browser_seen=False,
            outcome=outcome,
        )


class RunTracker:
    """Tracks all living children. Times are those of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._children: dict[Owner, TrackedChild] = {}

    def record_report(self, report: ChildReport) -> None:
        """Update a child from its own report."""
        owner = Owner(report.pool, report.pid, report.start_ticks)
        child = self._children.setdefault(owner, TrackedChild(owner, report.tasks_done))
        idle = Parts(report.idle_bytes, 0, report.idle_shared_bytes) if report.idle_bytes else None
        if report.tasks_done > child.tasks_done:
            # While it traces, its memory includes the records of its allocations.
            if not report.tracing:
                runs = report.tasks_done - child.tasks_done
                tasks = dict(report.ended)
                if sum(tasks.values()) != runs:
                    # A report was lost, or lacks names.
                    tasks = {(child.task or "") if runs == 1 else "": runs}
                child.waiting.append(child.end_run(tasks, report.last_task_ended or report.sent, idle))
            before = child.idle or Parts()
            child.idle = before._replace(python=report.idle_bytes, shared=report.idle_shared_bytes)
            child.tasks_done = report.tasks_done
            child.ended_task = next(reversed(report.ended), child.task)
            child.peak, child.task, child.begun = Parts(), None, None
        if report.task_id is not None:
            child.task, child.begun = report.task_name, report.sent
            if report.tasks_done == 0 and idle is not None:
                # Its first task has just begun and has started nothing yet.
                child.idle = idle

    def record_snapshot(
        self, snapshot: Snapshot, oom_killed: bool, preempted: Iterable[Owner]
    ) -> list[RunRecord]:
        """Update all children from a snapshot; return the runs that are now complete."""
        finished: list[RunRecord] = []
        for child in snapshot.children:
            tracked = self._children.setdefault(child.owner, TrackedChild(child.owner, child.tasks_done))
            finished += update_child(tracked, child)
        living = {child.owner for child in snapshot.children}
        for owner in [owner for owner in self._children if owner not in living]:
            gone = self._children.pop(owner)
            finished += map(without_browsers, gone.waiting)
            if gone.task is not None:
                outcome = "preempted" if owner in preempted else "oom" if oom_killed else "died"
                finished.append(gone.end_run({gone.task: 1}, snapshot.at, None, outcome))
        return finished

    def record_reap(self, owner: Owner, processes: Iterable[Process]) -> None:
        """Take what was killed from what a child held before its present task: no task has freed it."""
        if (child := self._children.get(owner)) is not None:
            killed_bytes = sum(process.anon_bytes for process in processes if process.is_browser)
            child.idle = without_bytes(child.idle, killed_bytes)
            # Their end has been told since the look at which the kill was decided.
            child.waiting = [
                replace(run, before=without_bytes(run.before, killed_bytes)) for run in child.waiting
            ]

    def task_of(self, owner: Owner) -> str | None:
        """Return the task that a child runs, else its last one."""
        child = self._children.get(owner)
        return (child.task or child.ended_task) if child is not None else None


def without_bytes(parts: Parts | None, browser_bytes: int) -> Parts | None:
    """Return memory without so much of its browsers."""
    return parts and parts._replace(browser=max(0, parts.browser - browser_bytes))


def update_child(tracked: TrackedChild, child: Child) -> list[RunRecord]:
    """Update one child from a snapshot; return the runs that are now complete."""
    if child.task_id is not None:
        tracked.task = child.task_name or tracked.task
        tracked.peak = larger(tracked.peak, parts_of(child))
    is_idle = child.task_id is None and tracked.task is None
    if tracked.waiting:
        return complete_runs(tracked, parts_of(child, None if is_idle else tracked.waiting[-1].ended))
    if is_idle and child.tree_bytes:
        tracked.idle = parts_of(child)
    return []


def complete_runs(tracked: TrackedChild, now: Parts) -> list[RunRecord]:
    """Return the waiting runs, with the browsers and programs of the snapshot that followed them."""
    waiting, tracked.waiting = tracked.waiting, []
    first = waiting[0].before
    known = first or Parts()
    # Which of several runs changed them is not known, except that none did if nothing changed.
    changed_bytes = abs(now.browser + now.other - known.browser - known.other)
    is_measured = len(waiting) == 1 or (first is not None and changed_bytes <= UNCHANGED_BYTES)
    finished = []
    for run in waiting:
        end = now if run is waiting[-1] else known
        before = run.before._replace(browser=known.browser, other=known.other) if run.before else None
        after = run.after._replace(browser=end.browser, other=end.other) if run.after else None
        peak = larger(run.peak, after)
        finished.append(replace(run, before=before, peak=peak, after=after, browser_seen=is_measured))
    if tracked.idle is not None:
        tracked.idle = tracked.idle._replace(browser=now.browser, other=now.other)
    return finished


def without_browsers(run: RunRecord) -> RunRecord:
    """Return a run whose child exited before its browsers were measured: they count as unchanged."""
    if run.before is None or run.after is None:
        return run
    return replace(run, after=run.after._replace(browser=run.before.browser, other=run.before.other))


def larger(parts: Parts, other: Parts | None) -> Parts:
    """Return the larger of two readings."""
    return other if other is not None and other.total > parts.total else parts
