"""Turns the governor's snapshots, actions and child reports into records of the history."""

import time
from dataclasses import replace

from recyclery.config.paths import history_file
from recyclery.config.settings import Settings
from recyclery.decide import actions
from recyclery.decide.actions import Action, Outcome, PreemptChild, ReapProcesses, RetireChild, RetireTraced
from recyclery.decide.memory_levels import pool_budget
from recyclery.decide.policy_state import PolicyState
from recyclery.history.records import (
    REPEAT_SECONDS,
    ActionRecord,
    ChildSample,
    ContainerSample,
    PoolSample,
    Record,
    parts_of,
)
from recyclery.history.runs import RunTracker
from recyclery.history.store import Writer
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from recyclery_worker.link import ChildReport

SAMPLE_INTERVAL_SECONDS = 1.0
# A smaller change is recorded only after REPEAT_SECONDS: most children hardly change most of the time.
CHANGE_BYTES = 1 << 20


class Recorder:
    """Never blocks: the writer's thread writes the records."""

    def __init__(self, settings: Settings) -> None:
        self._writer = Writer(history_file(settings.state_dir), settings.history)
        self._runs = RunTracker()
        self._sampled = 0.0
        self._children: dict[Owner, ChildSample] = {}
        self._pools: dict[str, PoolSample] = {}
        self._budgets: dict[str, tuple[float, int]] = {}
        self._oom_kills: int | None = None
        self._preempted: set[Owner] = set()

    def record_report(self, report: ChildReport) -> None:
        """Record a child's report."""
        self._runs.record_report(report)

    def record_snapshot(self, snapshot: Snapshot, state: PolicyState, settings: Settings) -> None:
        """Record a snapshot."""
        wall = time.time() - snapshot.at
        at, container = snapshot.at + wall, snapshot.container
        kills = container.oom_kills - self._oom_kills if self._oom_kills is not None else 0
        self._oom_kills = container.oom_kills
        records: list[Record] = [
            replace(run, ended=run.ended + wall)
            for run in self._runs.record_snapshot(snapshot, kills > 0, self._preempted)
        ]
        if kills > 0:
            # The kernel does not report which process it chose: the largest child is named.
            largest = max(self._children.values(), key=lambda sample: sample.parts.total, default=None)
            owner, task = (largest.owner, largest.task) if largest is not None else (None, None)
            pool, line = owner.pool if owner is not None else "", f"the kernel's OOM killer killed {kills}"
            levels = container.floor_bytes, container.limit_bytes
            records.append(ActionRecord(at, "oom", pool, owner, task, f"{kills}", line, True, *levels))
        if snapshot.at - self._sampled >= SAMPLE_INTERVAL_SECONDS:
            # A snapshot that is a little late must not delay all later ones.
            self._sampled = max(
                self._sampled + SAMPLE_INTERVAL_SECONDS, snapshot.at - SAMPLE_INTERVAL_SECONDS / 2
            )
            limit, usage, floor = container.limit_bytes, container.usage_bytes, container.floor_bytes
            shm_files, oom_kills = snapshot.shm_files_bytes, container.oom_kills
            records.append(ContainerSample(at, limit, usage, floor, shm_files, oom_kills))
            records += self._sample_children(snapshot, at)
            for view in snapshot.pools:
                records += self._sample_pool(view, snapshot, state, settings, at)
        self._preempted &= {child.owner for child in snapshot.children}
        if records:
            self._writer.put(records)

    def record_action(self, action: Action, outcome: Outcome, snapshot: Snapshot) -> None:
        """Record an action and its outcome, except those that are repeated all the time."""
        owner = None
        match action:
            case actions.RemoveFiles() | actions.ReapZombies() | actions.PauseConsuming(renewed=True):
                return
            case ReapProcesses() | RetireChild() | RetireTraced() | PreemptChild():
                owner = action.owner
        if isinstance(action, PreemptChild):
            self._preempted.add(action.owner)
        if isinstance(action, ReapProcesses) and outcome.done:
            self._runs.record_reap(action.owner, action.processes)
        record = ActionRecord(
            at=time.time(),
            kind=f"{action.kind} {action.cause}" if isinstance(action, ReapProcesses) else action.kind,
            pool=owner.pool if owner is not None else getattr(action, "pool", ""),
            owner=owner,
            task=self._find_task(action, owner),
            reason=getattr(action, "reason", ""),
            line=outcome.line,
            done=outcome.done,
            floor_bytes=snapshot.container.floor_bytes,
            limit_bytes=snapshot.container.limit_bytes,
        )
        self._writer.put([record])

    def _find_task(self, action: Action, owner: Owner | None) -> str | None:
        """Return the task that an action is for: the one that runs, but of leftovers the one that left them."""
        if owner is None or (isinstance(action, ReapProcesses) and action.cause == "leftovers"):
            return getattr(action, "task", None)
        return self._runs.task_of(owner)

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed settings."""
        self._writer.limits = settings.history

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _sample_children(self, snapshot: Snapshot, at: float) -> list[Record]:
        samples = [
            ChildSample(at, child.owner, parts_of(child), child.task_name) for child in snapshot.children
        ]
        changed = [sample for sample in samples if has_changed(self._children.get(sample.owner), sample)]
        last = self._children | {sample.owner: sample for sample in changed}
        self._children = {sample.owner: last[sample.owner] for sample in samples}
        return list(changed)

    def _sample_pool(
        self, view: PoolView, snapshot: Snapshot, state: PolicyState, settings: Settings, at: float
    ) -> list[Record]:
        pool = next((pool for pool in settings.pools if pool.name == view.name), None)
        children = [child for child in snapshot.children if child.owner.pool == view.name]
        held = snapshot.told_bytes(sum(child.own_bytes for child in children))
        last = self._pools.get(view.name)
        if pool is None or (
            last is not None and at - last.at < REPEAT_SECONDS and abs(last.tree_bytes - held) < CHANGE_BYTES
        ):
            return []
        computed, budget = self._budgets.get(view.name, (-REPEAT_SECONDS, 0))
        if at - computed >= REPEAT_SECONDS:
            # Expensive to compute, and slow to change.
            budget = pool_budget(pool, snapshot, state, settings)
            self._budgets[view.name] = at, budget
        sample = PoolSample(
            at,
            view.name,
            held,
            snapshot.told_bytes(view.main_bytes),
            len(children),
            budget,
            view.max_tasks_per_child,
        )
        self._pools[view.name] = sample
        return [sample]


def has_changed(last: ChildSample | None, sample: ChildSample) -> bool:
    """Return whether a child has changed enough, or its last sample is old enough, to record another one."""
    return (
        last is None
        or sample.at - last.at >= REPEAT_SECONDS
        or sample.task != last.task
        or any(abs(now - before) >= CHANGE_BYTES for now, before in zip(sample.parts, last.parts, strict=True))
    )
