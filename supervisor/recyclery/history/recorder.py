"""What the governor tells the history: each look, each child's word, each thing done."""

from __future__ import annotations

import time
from dataclasses import replace

from recyclery.config.paths import history_file
from recyclery.config.settings import History, Settings
from recyclery.decide.actions import Action, Clean, Collect, Dismiss, Hold, Outcome, Preempt, Reap, Retire
from recyclery.decide.budget import pool_budget
from recyclery.decide.policy_state import PolicyState
from recyclery.history.records import (
    ActionRecord,
    ChildSample,
    ContainerSample,
    PoolSample,
    Record,
    parts_of,
)
from recyclery.history.retention import DAY_MS, HOUR_MS, Keeping
from recyclery.history.runs import Runs
from recyclery.history.store import Writer
from recyclery.observe.snapshot import Child, Owner, Snapshot
from recyclery_worker.link import ChildReport

SAMPLE_SECONDS = 1.0
# What changes by less is told again only after a while: most children hold still for most of the time.
CHANGE_BYTES = 1 << 20
TELL_AGAIN_SECONDS = 30.0


class Recorder:
    """Nothing here waits: records go to the writer's thread."""

    def __init__(self, settings: Settings) -> None:
        self._writer = Writer(history_file(settings.state_dir), keeping(settings.history))
        self._runs = Runs()
        self._sampled = 0.0
        self._children: dict[Owner, ChildSample] = {}
        self._pools: dict[str, PoolSample] = {}
        self._budgets: dict[str, tuple[float, int]] = {}
        self._oom_kills: int | None = None
        self._preempted: set[Owner] = set()

    def hear(self, report: ChildReport) -> None:
        """Take in a child's own word."""
        self._runs.hear(report)

    def look(self, snapshot: Snapshot, state: PolicyState, settings: Settings) -> None:
        """Take in what was observed in this tick."""
        wall = time.time() - snapshot.at
        kills = self._new_oom_kills(snapshot)
        records: list[Record] = [
            replace(run, ended=run.ended + wall)
            for run in self._runs.look(snapshot, bool(kills), self._preempted)
        ]
        if kills:
            records.append(self._oom_record(snapshot, kills, wall))
        if snapshot.at - self._sampled >= SAMPLE_SECONDS:
            # At whole steps, else a look that comes a little late would shift all after it.
            self._sampled = max(self._sampled + SAMPLE_SECONDS, snapshot.at - SAMPLE_SECONDS / 2)
            records += self._sample(snapshot, state, settings, snapshot.at + wall)
        self._preempted &= {child.owner for child in snapshot.children}
        if records:
            self._writer.put(records)

    def note(self, action: Action, outcome: Outcome, snapshot: Snapshot) -> None:
        """Take down what was done and what came of it; what is done all the time, of itself, is left out."""
        if isinstance(action, Clean | Collect) or (isinstance(action, Hold) and action.renewed):
            return
        if isinstance(action, Preempt):
            self._preempted.add(action.owner)
        owner = action.owner if isinstance(action, Reap | Retire | Dismiss | Preempt) else None
        kind = f"{action.kind} {action.cause}" if isinstance(action, Reap) else action.kind
        self._writer.put(
            [
                ActionRecord(
                    at=time.time(),
                    kind=kind,
                    pool=owner.pool if owner is not None else getattr(action, "pool", ""),
                    owner=owner,
                    task=self._runs.task_of(owner) if owner is not None else None,
                    reason=getattr(action, "reason", ""),
                    line=outcome.line,
                    done=outcome.done,
                    floor_bytes=snapshot.container.floor_bytes,
                    limit_bytes=snapshot.container.limit_bytes,
                )
            ]
        )

    def follow(self, settings: Settings) -> None:
        """Go by other settings from now on."""
        self._writer.keeping = keeping(settings.history)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _new_oom_kills(self, snapshot: Snapshot) -> int:
        before, self._oom_kills = self._oom_kills, snapshot.container.oom_kills
        return max(0, self._oom_kills - before) if before is not None else 0

    def _oom_record(self, snapshot: Snapshot, kills: int, wall: float) -> ActionRecord:
        """Return what the kernel did. Whom it chose it does not tell: the largest child is named."""
        largest = max(self._children.values(), key=lambda sample: sample.parts.total, default=None)
        return ActionRecord(
            at=snapshot.at + wall,
            kind="oom",
            pool=largest.owner.pool if largest is not None else "",
            owner=largest.owner if largest is not None else None,
            task=largest.task if largest is not None else None,
            reason=f"{kills}",
            line=f"the kernel killed {kills} for want of memory",
            done=True,
            floor_bytes=snapshot.container.floor_bytes,
            limit_bytes=snapshot.container.limit_bytes,
        )

    def _sample(self, snapshot: Snapshot, state: PolicyState, settings: Settings, at: float) -> list[Record]:
        container = snapshot.container
        records: list[Record] = [
            ContainerSample(
                at,
                container.limit_bytes,
                container.usage_bytes,
                container.floor_bytes,
                snapshot.shm_files_bytes,
                container.oom_kills,
            )
        ]
        trees: dict[str, list[int]] = {}
        for child in snapshot.children:
            sample = self._sample_child(child, at)
            trees.setdefault(child.owner.pool, []).append(child.tree_bytes)
            known = self._children.get(child.owner)
            if known is None or is_news(known, sample):
                self._children[child.owner] = sample
                records.append(sample)
        living = {child.owner for child in snapshot.children}
        self._children = {owner: known for owner, known in self._children.items() if owner in living}
        for view in snapshot.pools:
            pool = next((pool for pool in settings.pools if pool.name == view.name), None)
            before = self._pools.get(view.name)
            tree = sum(trees.get(view.name, ()))
            stale = before is None or at - before.at >= TELL_AGAIN_SECONDS
            if pool is None or not (stale or (before and abs(before.tree_bytes - tree) >= CHANGE_BYTES)):
                continue
            reckoned, budget = self._budgets.get(view.name, (-TELL_AGAIN_SECONDS, 0))
            if at - reckoned >= TELL_AGAIN_SECONDS:
                # Dear to reckon, and slow to change.
                budget = pool_budget(pool, snapshot, state, settings)
                self._budgets[view.name] = at, budget
            sampled = self._pools[view.name] = PoolSample(
                at,
                view.name,
                tree,
                view.main_bytes,
                len(trees.get(view.name, ())),
                budget,
                view.max_tasks_per_child,
            )
            records.append(sampled)
        return records

    def _sample_child(self, child: Child, at: float) -> ChildSample:
        return ChildSample(at, child.owner, parts_of(child), child.task_name)


def is_news(known: ChildSample, sample: ChildSample) -> bool:
    """Tell whether a child has changed enough, or was not told of for long enough."""
    return (
        sample.at - known.at >= TELL_AGAIN_SECONDS
        or sample.task != known.task
        or any(abs(now - before) >= CHANGE_BYTES for now, before in zip(sample.parts, known.parts, strict=True))
    )


def keeping(history: History) -> Keeping:
    """Return what the settings say of how much is kept."""
    return Keeping(
        max_bytes=history.max_bytes,
        seconds_ms=round(history.seconds_hours * HOUR_MS),
        minutes_ms=round(history.minutes_days * DAY_MS),
        totals_ms=round(history.totals_days * DAY_MS),
    )
