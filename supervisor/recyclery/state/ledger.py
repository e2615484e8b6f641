"""Keeps the `PolicyState` from tick to tick: what changed between two snapshots, and what actions did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.decide.actions import Action, Outcome
from recyclery.decide.concurrency import update_workload
from recyclery.decide.delivery import find_child_deaths, update_lease_owners
from recyclery.decide.handoff import update_successors
from recyclery.decide.memory_model import PoolModel
from recyclery.decide.policy_state import (
    WARN_AGAIN_SECONDS,
    Counters,
    LeaseOwner,
    PolicyState,
    is_recent,
    without_key,
)
from recyclery.decide.stalls import update_stalls
from recyclery.decide.worker_health import update_worker_health
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery_worker.link import WorkerStat

# Why a child left, its worker knows: its word is waited for as long as this.
WORD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DepartedChild:
    """A child that has gone, its worker's slot, and what it held when last seen."""

    owner: Owner
    slot: str
    tree_bytes: int
    noticed: float


class Ledger:
    """`state` is what the next decision is to know. Times are those of the snapshots."""

    def __init__(self, settings: Settings) -> None:
        self.state = PolicyState(risk=settings.memory.risk_percent / 100)
        self._gone: dict[Owner, DepartedChild] = {}
        self._last: Snapshot | None = None

    def begin(
        self,
        snapshot: Snapshot,
        stats: Mapping[str, WorkerStat],
        models: Mapping[str, PoolModel],
        settings: Settings,
    ) -> list[str]:
        """Compare a snapshot with the one before, `stats` by slot; return lines on who has left meanwhile."""
        before = self._last
        fallen = (
            find_child_deaths(before, snapshot, self.state.preempted_children) if before is not None else ()
        )
        self._notice_gone(snapshot)
        lines = [*self._report_oom_kills(snapshot), *self._settle_gone(snapshot, stats)]
        state, failures = update_successors(self.state, snapshot)
        living, at = {child.owner for child in snapshot.children}, snapshot.at
        busy_since, idle_since = update_workload(state, snapshot, settings)
        self.state = replace(
            state,
            models=dict(models),
            risk=settings.memory.risk_percent / 100,
            retired=only(state.retired, living | self._gone.keys()),
            timed_out=only(state.timed_out, living),
            dismissed=only(state.dismissed, living),
            warned={
                topic: then for topic, then in state.warned.items() if is_recent(then, at, WARN_AGAIN_SECONDS)
            },
            child_deaths=fallen,
            lease_owners=update_lease_owners(state.lease_owners, snapshot, map(holder_of, stats.values())),
            silences=update_stalls(state.silences, snapshot),
            unhealthy=update_worker_health(state.unhealthy, snapshot, settings),
            busy_since=busy_since,
            idle_since=idle_since,
            counters=with_reports(state.counters, stats),
        )
        return lines + failures

    def record(self, action: Action, outcome: Outcome, at: float) -> None:
        """Keep what an action changed."""
        self.state = action.after(self.state, outcome, at)

    def end(self, snapshot: Snapshot, decided: PolicyState) -> None:
        """Keep the snapshot to compare the next with; what `decided` said was changed has been heeded."""
        self._last = snapshot
        heeded = decided.changed & {view.name for view in snapshot.pools if view.state is PoolState.RUNNING}
        strangers = frozenset(process.key for process in snapshot.foreign_browsers)
        self.state = replace(self.state, changed=self.state.changed - heeded, known_foreign=strangers)

    def ask_replacement(self, pool: str) -> None:
        """Have a pool's worker replaced as soon as it can be."""
        asked, failures = {**self.state.asked, pool: "asked to"}, without_key(self.state.failures, pool)
        self.state = replace(self.state, asked=asked, failures=failures)

    def retry_replacements(self) -> None:
        """Forget what failed: the settings are others now."""
        self.state = replace(self.state, failed_rollouts={})

    def record_changed(self, pools: Set[str]) -> None:
        """Keep whose max-tasks-per-child was changed in the settings."""
        self.state = replace(self.state, changed=self.state.changed | pools)

    def _report_oom_kills(self, snapshot: Snapshot) -> Iterator[str]:
        container = snapshot.container
        kills = container.oom_kills - self._last.container.oom_kills if self._last is not None else 0
        if kills > 0:
            yield (
                f"the kernel killed {kills} process{'es' if kills > 1 else ''} for want of memory, "
                f"{container.oom_kills} so far: something grew past the limit faster than could be watched"
            )

    def _notice_gone(self, snapshot: Snapshot) -> None:
        before = self._last
        if before is None:
            return
        mains = {view.slot: view.pid for view in before.workers}
        views = {view.slot: view for view in snapshot.workers}
        living = {child.owner for child in snapshot.children}
        for child in before.children:
            view = views.get(child.slot)
            # Children that went with their main process were not recycled.
            if view is None or view.state.is_leaving:
                continue
            if child.owner not in living and view.pid == mains.get(view.slot):
                self._gone[child.owner] = DepartedChild(child.owner, child.slot, child.tree_bytes, snapshot.at)

    def _settle_gone(self, snapshot: Snapshot, stats: Mapping[str, WorkerStat]) -> Iterator[str]:
        for owner, gone in list(self._gone.items()):
            stat = stats.get(gone.slot)
            if (stat is None or stat.sent <= gone.noticed) and is_recent(
                gone.noticed, snapshot.at, WORD_SECONDS
            ):
                continue
            del self._gone[owner]
            asked, reason = self.state.retired.get(owner), self._count_gone(owner, stat)
            if reason == "budget" and asked is not None:
                yield (
                    f"retired {owner.pool}/{owner.pid} has left, {gone.noticed - asked:.1f} s after it was "
                    f"asked to: {gone.tree_bytes >> 20} MiB came back"
                )
            elif reason == "died":
                yield f"{owner.pool}/{owner.pid} died with {gone.tree_bytes >> 20} MiB, not by us"

    def _count_gone(self, owner: Owner, stat: WorkerStat | None) -> str:
        """Count a child that has gone; return why: preempt, budget (we retired it), its worker's word, died."""
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


def only(times: Mapping[Owner, float], owners: Set[Owner]) -> dict[Owner, float]:
    """Return the times of these children alone."""
    return {owner: at for owner, at in times.items() if owner in owners}


def holder_of(stat: WorkerStat) -> LeaseOwner:
    """Return what a worker says of the messages that it holds."""
    return LeaseOwner(stat.generation, stat.pool, stat.pid, frozenset(child.pid for child in stat.children))


def with_reports(counters: Counters, stats: Mapping[str, WorkerStat]) -> Counters:
    """Return the counters with what the workers count; of the parked tasks some report a little late."""
    given_back = {(stat.pool, stat.pid): stat.reclaimed for stat in stats.values() if stat.reclaimed}
    return replace(
        counters,
        reclaimed_by={**counters.reclaimed_by, **given_back},
        parked=max((stat.parked for stat in stats.values()), default=counters.parked),
    )
