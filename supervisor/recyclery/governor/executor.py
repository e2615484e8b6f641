"""Has what was decided done, and tells all who go by it: the ledger, the history, the log, the next look."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from recyclery.act.outcome import Outcome
from recyclery.act.perform import perform
from recyclery.decide.actions import (
    Abandon,
    Action,
    Clean,
    Collect,
    EndSession,
    Evict,
    Hold,
    KillWorker,
    Leave,
    Notice,
    Preempt,
    Reap,
    Replace,
    Scale,
    Tune,
)
from recyclery.governor.inbox import Hearsay
from recyclery.history.recorder import Recorder
from recyclery.observe.observer import Observer
from recyclery.observe.snapshot import Snapshot
from recyclery.state.event_log import Recent
from recyclery.state.ledger import Ledger

log = logging.getLogger("recyclery")

# What is still to be ended on a Grid when the governor stops gets so long.
LAST_WORDS_SECONDS = 2.0


class Deeds:
    """Carries out one action after the other; only sessions on a Grid are ended beside all else."""

    def __init__(
        self,
        runtime_dir: Path,
        *,
        ledger: Ledger,
        recorder: Recorder,
        recent: Recent,
        hearsay: Hearsay,
        observer: Observer,
        wake: Callable[[], None],
    ) -> None:
        self._runtime_dir = runtime_dir
        self._ledger = ledger
        self._recorder = recorder
        self._recent = recent
        self._hearsay = hearsay
        self._observer = observer
        self._wake = wake
        self._endings: set[asyncio.Task[Outcome]] = set()

    async def do(self, action: Action, snapshot: Snapshot) -> None:
        """Carry out what was decided on a snapshot, unless it has only just been said."""
        if isinstance(action, Notice) and not self._ledger.is_news(action, snapshot.at):
            return
        if isinstance(action, EndSession):
            # The other end may take its time; the next look must not tell of it again.
            state = self._hearsay.states[action.owner]
            remote = tuple(session for session in state.remote if session != action.session)
            self._hearsay.states[action.owner] = replace(state, remote=remote)
            ending = asyncio.create_task(self.carry_out(action, snapshot))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            return
        await self.carry_out(action, snapshot)

    async def carry_out(self, action: Action, snapshot: Snapshot) -> Outcome:
        """Do it now, and tell of it."""
        slots = slots_in(snapshot)
        outcome = await perform(action, self._runtime_dir, slots, self._observer.read_floor)
        # What goes well of itself, and often, is of no interest to a person.
        worth = self._ledger.is_news(action, snapshot.at) and not isinstance(action, Collect | Clean)
        log.log(logging.INFO if worth or not outcome.done else logging.DEBUG, "%s", outcome.line)
        if worth or not outcome.done:
            self._recent.note(snapshot.at, outcome.line, done=outcome.done)
        self._ledger.note(action, outcome, snapshot.at)
        self._recorder.note(action, outcome, snapshot)
        if outcome.done:
            self._foresee(action, slots)
        if isinstance(action, Reap | Preempt | KillWorker | Evict):
            self._wake()
        if isinstance(action, Clean):
            self._observer.belongings.note_tried([left.folder for left in action.remains], snapshot.at)
        return outcome

    async def finish(self) -> None:
        """Wait a moment for what is done beside all else."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=LAST_WORDS_SECONDS)

    def _foresee(self, action: Action, slots: Mapping[str, str]) -> None:
        """Take what a worker was told for what it does, until it says so itself."""
        match action:
            case Replace() | Leave() | Abandon():
                self._hearsay.hurry()
                self._wake()
            case Hold(pool=pool, on=on):
                self._hearsay.workers.note_change(slots[pool], holding=on)
            case Tune(pool=pool, max_tasks=max_tasks):
                self._hearsay.workers.note_change(slots[pool], max_tasks_per_child=max_tasks)
            case Scale(pool=pool, concurrency=concurrency):
                self._hearsay.workers.note_change(slots[pool], concurrency=concurrency)


def slots_in(snapshot: Snapshot) -> dict[str, str]:
    """Return the slot of each pool's worker."""
    return {view.name: view.slot for view in snapshot.pools}
