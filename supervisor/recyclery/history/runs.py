"""Follows each child through its tasks and yields a `RunRecord` for every one that ends.

Two sources, each with what it knows best. The child's own word, sent as a task ends, has its Python and shared
memory at that very moment, however soon the next task begins. The governor's looks have its browsers and other
programs, and the peaks in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from recyclery.history.records import Parts, RunRecord, parts_of
from recyclery.observe.snapshot import Child, Owner, Snapshot
from recyclery_worker.link import ChildReport

# Where several tasks ended between two looks, a change of browsers by no more than this is none's doing.
UNCHANGED_BYTES = 1 << 20


@dataclass
class Life:
    """One child as far as it was followed."""

    owner: Owner
    tasks_done: int
    idle: Parts | None = None
    """Idle memory as last known: seen in a look, or by the child's own word."""
    peak: Parts = field(default_factory=Parts)
    task: str | None = None
    begun: float | None = None
    ended_task: str | None = None
    waiting: list[RunRecord] = field(default_factory=list)
    """Runs that ended since the last look, which will tell what browsers they left."""


class Runs:
    """All children that live, and the runs that have ended. Times in are those of CLOCK_BOOTTIME."""

    def __init__(self) -> None:
        self._lives: dict[Owner, Life] = {}

    def hear(self, report: ChildReport) -> None:
        """Take in a child's own word."""
        owner = Owner(report.pool, report.pid, report.start_ticks)
        life = self._lives.get(owner)
        if life is None:
            life = self._lives[owner] = Life(owner, report.tasks_done)
        if report.tasks_done > life.tasks_done:
            if not report.tracing:
                # Else it holds records of its allocations too.
                life.waiting.append(ended_run(life, report))
            before = life.idle or Parts()
            life.idle = before._replace(python=report.idle_bytes, shared=report.idle_shared_bytes)
            life.tasks_done = report.tasks_done
            life.ended_task = next(reversed(report.ended), life.task)
            life.peak, life.task, life.begun = Parts(), None, None
        if report.task_id is not None:
            life.task, life.begun = report.task_name, report.sent
            if report.tasks_done == 0 and report.idle_bytes:
                # Its first task has just begun: so far it has started nothing.
                life.idle = Parts(report.idle_bytes, 0, report.idle_shared_bytes)

    def look(self, snapshot: Snapshot, oom_killed: bool, preempted: Iterable[Owner]) -> list[RunRecord]:
        """Take in a look at all children; return the runs that are known to their end with it."""
        finished: list[RunRecord] = []
        for child in snapshot.children:
            life = self._lives.get(child.owner)
            if life is None:
                life = self._lives[child.owner] = Life(child.owner, child.tasks_done)
            finished += see_child(life, child)
        living = {child.owner for child in snapshot.children}
        outcome = "oom" if oom_killed else "died"
        for owner in [owner for owner in self._lives if owner not in living]:
            life = self._lives.pop(owner)
            finished += [unseen(run) for run in life.waiting]
            if life.task is not None:
                finished.append(cut_off(life, "preempted" if owner in preempted else outcome, snapshot.at))
        return finished

    def task_of(self, owner: Owner) -> str | None:
        """Return the task that a child is at, else the one that it ended last."""
        life = self._lives.get(owner)
        return (life.task or life.ended_task) if life is not None else None


def ended_run(life: Life, report: ChildReport) -> RunRecord:
    """Return the run that a report says has ended; what it left of browsers is not known yet."""
    runs = report.tasks_done - life.tasks_done
    tasks = dict(report.ended)
    if sum(tasks.values()) != runs:
        # A report was lost, or had no names: of the others' names nothing is known.
        tasks = {life.task or "": runs} if runs == 1 else {"": runs}
    ended = report.last_task_ended or report.sent
    after = Parts(report.idle_bytes, 0, report.idle_shared_bytes) if report.idle_bytes else None
    return RunRecord(
        owner=life.owner,
        tasks=tasks,
        place=life.tasks_done,
        ended=ended,
        seconds=max(0.0, ended - life.begun) if life.begun is not None else 0.0,
        before=life.idle,
        peak=highest(life.peak, after or Parts()),
        after=after,
        browser_seen=False,
        outcome="done",
    )


def see_child(life: Life, child: Child) -> list[RunRecord]:
    """Take in a look at one child; return the runs that it completes."""
    if child.task_id is not None:
        life.task = child.task_name or life.task
        life.peak = max(life.peak, parts_of(child), key=lambda parts: parts.total)
    idle = child.task_id is None and life.task is None
    finished: list[RunRecord] = []
    if life.waiting:
        finished = complete(life, parts_of(child, None if idle else life.waiting[-1].ended))
    elif idle and child.tree_bytes:
        life.idle = parts_of(child)
    return finished


def complete(life: Life, seen: Parts) -> list[RunRecord]:
    """Return the runs that waited for this look, with what browsers and programs hold after them."""
    waiting, life.waiting = life.waiting, []
    before = waiting[0].before
    known = before or Parts()
    alone = len(waiting) == 1
    # Which of several runs changed it cannot be told; if nothing changed, none did.
    told = (
        before is not None and abs(seen.browser + seen.other - known.browser - known.other) <= UNCHANGED_BYTES
    )
    finished = []
    for number, run in enumerate(waiting):
        is_last = number == len(waiting) - 1
        beside = seen if is_last else known
        start = run.before._replace(browser=known.browser, other=known.other) if run.before else None
        after = run.after._replace(browser=beside.browser, other=beside.other) if run.after else None
        peak = highest(run.peak, after or Parts())
        finished.append(replace(run, before=start, peak=peak, after=after, browser_seen=alone or told))
    if life.idle is not None:
        life.idle = life.idle._replace(browser=seen.browser, other=seen.other)
    return finished


def unseen(run: RunRecord) -> RunRecord:
    """Return a run whose child left before anybody could look at its browsers."""
    if run.before is None or run.after is None:
        return run
    after = run.after._replace(browser=run.before.browser, other=run.before.other)
    return replace(run, after=after)


def cut_off(life: Life, outcome: str, at: float) -> RunRecord:
    """Return the run that a child died with."""
    return RunRecord(
        owner=life.owner,
        tasks={life.task or "": 1},
        place=life.tasks_done,
        ended=at,
        seconds=max(0.0, at - life.begun) if life.begun is not None else 0.0,
        before=life.idle,
        peak=life.peak,
        after=None,
        browser_seen=False,
        outcome=outcome,
    )


def highest(one: Parts, other: Parts) -> Parts:
    """Return the larger of two readings."""
    return one if one.total >= other.total else other
