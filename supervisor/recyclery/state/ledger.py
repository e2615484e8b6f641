"""What was done and when, and what came of it: the notes from which each decision gets its `Past`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from recyclery.act.outcome import Outcome
from recyclery.config.settings import Settings
from recyclery.decide.actions import (
    Abandon,
    Action,
    Dismiss,
    EndSession,
    Evict,
    Hold,
    KillWorker,
    Leave,
    Notice,
    Preempt,
    Reap,
    Reclaim,
    Replace,
    Retire,
    Scale,
    TellFell,
    TimeOut,
    Tune,
)
from recyclery.decide.concurrency import note_work
from recyclery.decide.delivery import find_fallen, follow_holders
from recyclery.decide.memory_model import RISK, PoolModel
from recyclery.decide.policy_state import Ailment, Fallen, Holder, Mend, Past, is_recent
from recyclery.decide.stalls import Silence, follow_silences
from recyclery.decide.worker_health import follow_ailments, follow_mend
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.state.counters import Counters
from recyclery.state.handoffs import Handoffs
from recyclery_worker.link import WorkerStat

SAY_AGAIN_SECONDS = 600.0
# Whose strangers' browsers are.
NOBODY = Owner("", 0, 0)
# Why a child left, its worker knows: its word is waited for as long as this.
WORD_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Gone:
    """A child that has gone, its worker's slot, and what it held when last seen."""

    owner: Owner
    slot: str
    tree_bytes: int
    noticed: float


@dataclass
class Ledger:
    """Times are those of the snapshots."""

    counters: Counters = field(default_factory=Counters)
    retired: dict[Owner, float] = field(default_factory=dict)
    replaced: dict[str, float] = field(default_factory=dict)
    handoffs: Handoffs = field(default_factory=Handoffs)
    refused: dict[str, int] = field(default_factory=dict)
    scaled: dict[str, float] = field(default_factory=dict)
    clean_lifetimes: dict[str, int] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    preempted: float | None = None
    holders: dict[str, Holder] = field(default_factory=dict)
    said: dict[str, float] = field(default_factory=dict)
    silences: dict[Owner, Silence] = field(default_factory=dict)
    ailments: dict[str, Ailment] = field(default_factory=dict)
    mended: dict[str, Mend] = field(default_factory=dict)
    timed_out: dict[Owner, float] = field(default_factory=dict)
    dismissed: dict[Owner, float] = field(default_factory=dict)
    _busy_since: dict[str, float] = field(default_factory=dict)
    _idle_since: dict[str, float] = field(default_factory=dict)
    _gone: dict[Owner, Gone] = field(default_factory=dict)
    _fallen: tuple[Fallen, ...] = ()
    _last: Snapshot | None = None

    def past(self, models: Mapping[str, PoolModel], risk: float = RISK) -> Past:
        """Return what the next decision is to know."""
        return Past(
            models=models,
            risk=risk,
            retired=self.retired,
            replaced=self.replaced,
            asked=self.handoffs.asked,
            abandoned=self.handoffs.abandoned,
            refused=self.refused,
            scaled=self.scaled,
            clean_lifetimes=self.clean_lifetimes,
            changed=frozenset(self.changed),
            busy_since=self._busy_since,
            idle_since=self._idle_since,
            preempted=self.preempted,
            holders=self.holders,
            fallen=self._fallen,
            silences=self.silences,
            ailments=self.ailments,
            mended=self.mended,
            timed_out=self.timed_out,
            dismissed=self.dismissed,
            known_strangers=frozenset(
                process.key for process in (self._last.strangers if self._last is not None else ())
            ),
        )

    def is_news(self, action: Action, at: float) -> bool:
        """Tell whether an action is worth a line: a notice or a hold that only goes on is not."""
        if isinstance(action, Notice):
            return not is_recent(self.said.get(action.topic), at, SAY_AGAIN_SECONDS)
        # A word on a child that may just have left tells nobody else anything.
        return not (isinstance(action, TellFell) or (isinstance(action, Hold) and action.renewed))

    def note(self, action: Action, outcome: Outcome, at: float) -> None:  # noqa: C901  # one line for each
        """Take down what was done and whether it was."""
        match action:
            case Reap() | Evict() | EndSession():
                self._count_browsers(action, outcome)
            case Retire(owner=owner):
                self._note_retire(owner, outcome, at)
            case Replace() | Leave() | Abandon():
                self._note_handoff(action, outcome, at)
            case KillWorker(pool=pool):
                self.mended[pool] = follow_mend(self.mended.get(pool), at)
                self.counters.count_killed(pool)
            case Preempt(owner=owner):
                self.preempted = at
                self.counters.preempted.add(owner)
            case Tune(pool=pool):
                self.clean_lifetimes[pool] = 0
            case Reclaim(generation=generation) if outcome.done:
                self.holders[generation] = replace(self.holders[generation], given_back=True)
            case Scale(pool=pool):
                self.scaled[pool] = at
            case TimeOut(owner=owner):
                self.timed_out[owner] = at
            case Dismiss(owner=owner):
                self.dismissed[owner] = at
            case Notice(topic=topic):
                self.said[topic] = at
            case _:
                pass

    def _note_handoff(self, action: Replace | Leave | Abandon, outcome: Outcome, at: float) -> None:
        self.handoffs.note(action, outcome, at)
        if not outcome.done:
            return
        if isinstance(action, Replace):
            self.replaced[action.pool] = at
            if action.pool in self.ailments:
                self.mended[action.pool] = follow_mend(self.mended.get(action.pool), at)
        if isinstance(action, Leave) or (isinstance(action, Replace) and action.successor is None):
            self.refused.pop(action.pool, None)
            self.counters.count_replaced(action.pool)

    def _note_retire(self, owner: Owner, outcome: Outcome, at: float) -> None:
        if outcome.refused:
            self.refused[owner.pool] = self.refused.get(owner.pool, 0) + 1
            return
        # Where nothing was answered it may have been heard all the same: asked again only after a while.
        self.retired[owner] = at
        if outcome.done:
            self.refused.pop(owner.pool, None)

    def _count_browsers(self, action: Reap | Evict | EndSession, outcome: Outcome) -> None:
        match action:
            case Reap(owner=owner, processes=processes):
                self.counters.count_reaped(owner, processes)
            case Evict(processes=processes):
                self.counters.count_reaped(NOBODY, processes)
            case EndSession() if outcome.done:
                self.counters.grid_ended += 1

    def begin(self, snapshot: Snapshot, stats: Mapping[str, WorkerStat], settings: Settings) -> list[str]:
        """Compare a snapshot with the one before, `stats` by slot; return lines on who has left meanwhile."""
        self._notice_gone(snapshot)
        self._fallen = find_fallen(self._last, snapshot, self.counters.preempted) if self._last else ()
        self.holders = follow_holders(self.holders, snapshot, map(holder_of, stats.values()))
        self.counters.count_reclaimed(stats.values())
        self.counters.count_parked(stats.values())
        lines = [
            *self._tell_oom_kills(snapshot),
            *self._settle_gone(snapshot, stats),
            *self.handoffs.follow(snapshot),
        ]
        living = {child.owner for child in snapshot.children}
        self.retired = {
            owner: at for owner, at in self.retired.items() if owner in living or owner in self._gone
        }
        self.said = {
            topic: at for topic, at in self.said.items() if is_recent(at, snapshot.at, SAY_AGAIN_SECONDS)
        }
        self.silences = follow_silences(self.silences, snapshot)
        self.ailments = follow_ailments(self.ailments, snapshot, settings)
        self.timed_out = {owner: at for owner, at in self.timed_out.items() if owner in living}
        self.dismissed = {owner: at for owner, at in self.dismissed.items() if owner in living}
        self._busy_since, self._idle_since = note_work(self.past({}), snapshot, settings)
        return lines

    def end(self, snapshot: Snapshot, past: Past) -> None:
        """Keep the snapshot to compare the next with; what `past` said was changed has been heeded."""
        self._last = snapshot
        self.changed -= past.changed & {view.name for view in snapshot.pools if view.state == "running"}

    def _tell_oom_kills(self, snapshot: Snapshot) -> list[str]:
        if self._last is None:
            return []
        container = snapshot.container
        kills = container.oom_kills - self._last.container.oom_kills
        if kills <= 0:
            return []
        return [
            f"the kernel killed {kills} process{'es' if kills > 1 else ''} for want of memory, "
            f"{container.oom_kills} so far: something grew past the limit faster than could be watched"
        ]

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
            if view is None or view.state in {"stopping", "draining"}:
                continue
            if child.owner not in living and view.pid == mains.get(view.slot):
                self._gone[child.owner] = Gone(child.owner, child.slot, child.tree_bytes, snapshot.at)

    def _settle_gone(self, snapshot: Snapshot, stats: Mapping[str, WorkerStat]) -> list[str]:
        lines = []
        for owner, gone in list(self._gone.items()):
            stat = stats.get(gone.slot)
            if (stat is None or stat.sent <= gone.noticed) and is_recent(
                gone.noticed, snapshot.at, WORD_SECONDS
            ):
                continue
            del self._gone[owner]
            departures = {left.pid: left.reason for left in stat.departures} if stat else {}
            asked = self.retired.get(owner)
            reason = self.counters.count_gone(owner, departures, self.retired)
            clean = self.clean_lifetimes.get(owner.pool, 0)
            self.clean_lifetimes[owner.pool] = clean + 1 if reason == "max_tasks" else 0
            if reason == "budget" and asked is not None:
                lines.append(
                    f"retired {owner.pool}/{owner.pid} has left, {gone.noticed - asked:.1f} s after it was "
                    f"asked to: {gone.tree_bytes >> 20} MiB came back"
                )
            elif reason == "died":
                lines.append(f"{owner.pool}/{owner.pid} died with {gone.tree_bytes >> 20} MiB, not by us")
        return lines


def holder_of(stat: WorkerStat) -> Holder:
    """Return what a worker says of the messages that it holds."""
    return Holder(stat.generation, stat.pool, stat.pid, frozenset(child.pid for child in stat.children))
