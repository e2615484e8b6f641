"""Carries out what was decided, and records what came of it in the state, the history and the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recyclery.act.perform import perform
from recyclery.decide.actions import (
    Action,
    Clean,
    EndSession,
    Kill,
    Outcome,
    SupervisordRequest,
    WorkerRequest,
)
from recyclery.governor.inbox import Inbox
from recyclery.history.recorder import Recorder
from recyclery.observe.observer import Observer
from recyclery.observe.snapshot import Snapshot
from recyclery.state.board import Board

log = logging.getLogger("recyclery")

# What is still to be ended on a Grid when the governor stops gets so long.
LAST_WORDS_SECONDS = 2.0


@dataclass(eq=False)
class Executor:
    """Carries out one action after the other; only sessions on a Grid are ended in the background."""

    board: Board
    observer: Observer
    inbox: Inbox
    recorder: Recorder
    wake: Callable[[], None]
    perform: Callable[..., Awaitable[Outcome]] = perform

    def __post_init__(self) -> None:
        self._endings: set[asyncio.Task[Outcome]] = set()

    async def start(self, action: Action, snapshot: Snapshot) -> None:
        """Carry out an action of a tick; the end of a session may take its time, and is not waited for."""
        if not isinstance(action, EndSession):
            await self.execute(action, snapshot)
            return
        # The next snapshot must not have it again.
        self.inbox.forget_session(action.owner, action.session)
        ending = asyncio.create_task(self.execute(action, snapshot))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def execute(self, action: Action, snapshot: Snapshot) -> Outcome:
        """Carry out one action and record it, whatever comes of it."""
        slots = {view.name: view.slot for view in snapshot.pools}
        try:
            outcome = await self.perform(
                action, self.board.settings.runtime_dir, slots, self.observer.read_floor
            )
        except Exception as error:  # one action that fails must not keep the others from being carried out
            log.exception("%s", action.what)
            outcome = Outcome(done=False, line=f"{action.what}; failed: {error!r}")
        is_news = not outcome.done or not action.is_routine
        log.log(logging.INFO if is_news else logging.DEBUG, "%s", outcome.line)
        if is_news:
            self.board.events.add(snapshot.at, outcome.line, done=outcome.done)
        self.board.ledger.record(action, outcome, snapshot.at)
        with contained("the history"):
            self.recorder.note(action, outcome, snapshot)
        self._prepare_next(action, outcome, slots, snapshot)
        return outcome

    async def finish(self) -> None:
        """Wait a moment for the sessions that are being ended."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=LAST_WORDS_SECONDS)

    def _prepare_next(
        self, action: Action, outcome: Outcome, slots: dict[str, str], snapshot: Snapshot
    ) -> None:
        """Make sure that the next snapshot shows what this has changed."""
        match action:
            case WorkerRequest() if outcome.done and action.reported:
                # Taken for what the worker does until it reports it.
                self.inbox.workers.note_change(action.request(slots)[0], **action.reported)
            case SupervisordRequest() if outcome.done:
                self.inbox.hurry()
                self.wake()
            case Kill():
                self.wake()
            case Clean():
                self.observer.belongings.note_tried([left.folder for left in action.remains], snapshot.at)
            case _:
                pass


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Log an exception and go on: what only records or reports may not stop a tick."""
    try:
        yield
    except Exception:
        log.exception("%s failed", what)
