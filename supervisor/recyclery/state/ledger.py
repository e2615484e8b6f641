"""Updates the `PolicyState` from tick to tick: by what changed between two snapshots, and by actions."""

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.decide.actions import Action, Outcome
from recyclery.decide.browsers import update_stalls
from recyclery.decide.concurrency import update_workload
from recyclery.decide.delivery import find_child_deaths, update_lease_owners
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import (
    WARN_AGAIN_SECONDS,
    LeaseOwner,
    PolicyState,
    Value,
    is_recent,
    without_key,
)
from recyclery.decide.replace import update_successors
from recyclery.decide.worker_health import update_worker_health
from recyclery.observe.snapshot import Child, Owner, Snapshot
from recyclery_worker.link import WorkerStat

# How long to wait for the worker's report of why a child exited.
DEPARTURE_SECONDS = 10.0


class Ledger:
    """`state` is that of the next decision. Times are those of snapshots."""

    def __init__(self, settings: Settings) -> None:
        self.state = PolicyState(risk=settings.memory.risk_percent / 100)
        self._departed: dict[Owner, tuple[Child, float]] = {}
        """Children that have exited, as last observed, and when that was noticed."""
        self._last: Snapshot | None = None

    def begin(
        self,
        snapshot: Snapshot,
        stats: Mapping[str, WorkerStat],
        models: Mapping[str, PoolModel],
        settings: Settings,
    ) -> list[str]:
        """Update the state by a snapshot and the workers' `stats` by slot; return lines for the log."""
        before, preempted = self._last, self.state.preempted_children
        deaths = find_child_deaths(before, snapshot, preempted) if before is not None else {}
        self._find_departed(snapshot)
        lines = [*self._report_oom_kills(snapshot), *self._explain_departed(snapshot, stats)]
        state, failures = update_successors(self.state, snapshot)
        living, at = {child.owner for child in snapshot.children}, snapshot.at
        state = update_workload(state, snapshot, settings)
        reports = [
            LeaseOwner(stat.generation, stat.pool, stat.pid, frozenset(child.pid for child in stat.children))
            for stat in stats.values()
        ]
        reclaimed = {(stat.pool, stat.pid): stat.reclaimed for stat in stats.values() if stat.reclaimed}
        self.state = replace(
            state,
            models=dict(models),
            risk=settings.memory.risk_percent / 100,
            task_limits={
                pool.name: most for pool in settings.pools if (most := pool.most_task_bytes) is not None
            },
            retired=keep_owners(state.retired, living | self._departed.keys()),
            timed_out=keep_owners(state.timed_out, living),
            interrupted=keep_owners(state.interrupted, living),
            failed_tasks=keep_owners(state.failed_tasks, living),
            dismissed=keep_owners(state.dismissed, living),
            warned={
                topic: then for topic, then in state.warned.items() if is_recent(then, at, WARN_AGAIN_SECONDS)
            },
            child_deaths=deaths,
            lease_owners=update_lease_owners(state.lease_owners, snapshot, reports),
            stalls=update_stalls(state.stalls, snapshot),
            unhealthy=update_worker_health(state.unhealthy, snapshot, settings),
            counters=replace(
                state.counters,
                reclaimed_by={**state.counters.reclaimed_by, **reclaimed},
                # All workers report the same parked list, possibly stale.
                parked=max((stat.parked for stat in stats.values()), default=state.counters.parked),
            ),
        )
        return lines + failures

    def record(self, action: Action, outcome: Outcome, at: float) -> None:
        """Update the state by an action."""
        self.state = action.after(self.state, outcome, at)

    def end(self, snapshot: Snapshot, decided: PolicyState) -> None:
        """End the tick: the changes in `decided` have been applied to every pool that runs."""
        self._last = snapshot
        applied = decided.changed & {view.name for view in snapshot.pools if view.state is PoolState.RUNNING}
        foreign = frozenset(process.key for process in snapshot.foreign_browsers)
        self.state = replace(self.state, changed=self.state.changed - applied, known_foreign=foreign)

    def ask_replacement(self, pool: str) -> None:
        """Request the replacement of a pool's worker."""
        asked, failures = {**self.state.asked, pool: "asked to"}, without_key(self.state.failures, pool)
        self.state = replace(self.state, asked=asked, failures=failures)

    def retry_replacements(self) -> None:
        """Allow failed replacements again: the settings are new."""
        self.state = replace(self.state, failed_rollouts={})

    def record_changed(self, pools: Set[str]) -> None:
        """Record the pools whose max-tasks-per-child was changed in the settings."""
        self.state = replace(self.state, changed=self.state.changed | pools)

    def _report_oom_kills(self, snapshot: Snapshot) -> Iterator[str]:
        container = snapshot.container
        kills = container.oom_kills - self._last.container.oom_kills if self._last is not None else 0
        if kills > 0:
            yield (
                f"the kernel killed {kills} process{'es' if kills > 1 else ''} for want of memory, "
                f"{container.oom_kills} so far: something grew past the limit faster than could be watched"
            )

    def _find_departed(self, snapshot: Snapshot) -> None:
        if self._last is None:
            return
        mains = {view.slot: view.pid for view in self._last.workers}
        # Children that exited with their main process were not recycled.
        pids = {view.slot: view.pid for view in snapshot.workers if not view.state.is_leaving}
        living = {child.owner for child in snapshot.children}
        for child in self._last.children:
            stays = child.slot in pids and pids[child.slot] == mains.get(child.slot)
            if stays and child.owner not in living:
                self._departed[child.owner] = child, snapshot.at

    def _explain_departed(self, snapshot: Snapshot, stats: Mapping[str, WorkerStat]) -> Iterator[str]:
        for owner, (gone, noticed) in list(self._departed.items()):
            stat = stats.get(gone.slot)
            is_due = stat is not None and stat.sent > noticed
            if not is_due and is_recent(noticed, snapshot.at, DEPARTURE_SECONDS):
                continue
            del self._departed[owner]
            asked, reason = self.state.retired.get(owner), self._count_departed(owner, stat)
            if reason == "budget" and asked is not None:
                yield (
                    f"retired {owner.pool}/{owner.pid} has left, {noticed - asked:.1f} s after it was "
                    f"asked to: {gone.tree_bytes >> 20} MiB came back"
                )
            elif reason == "died":
                yield f"{owner.pool}/{owner.pid} exited unexpectedly ({gone.tree_bytes >> 20} MiB)"

    def _count_departed(self, owner: Owner, stat: WorkerStat | None) -> str:
        """Count a departed child; return why: preempt, budget (retired), the worker's reason, or died."""
        state, departures = self.state, stat.departures if stat is not None else ()
        if owner in state.preempted_children:
            reason = "preempt"
        elif owner in state.retired:
            reason = "budget"
        else:
            reason = {left.pid: left.reason for left in departures}.get(owner.pid, "died")
        clean = state.clean_lifetimes.get(owner.pool, 0) + 1 if reason == "max_tasks" else 0
        self.state = replace(
            state,
            preempted_children=state.preempted_children - {owner},
            clean_lifetimes={**state.clean_lifetimes, owner.pool: clean},
            counters=state.counters.with_recycle(owner.pool, reason),
        )
        return reason


def keep_owners(known: Mapping[Owner, Value], owners: Set[Owner]) -> dict[Owner, Value]:
    return {owner: value for owner, value in known.items() if owner in owners}
