"""Executes actions and records their outcomes in the state, the history and the log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from recyclery.act.dispatch import perform
from recyclery.decide import actions
from recyclery.decide.actions import Action, Outcome
from recyclery.governor.inbox import Inbox
from recyclery.history.recorder import Recorder
from recyclery.observe.observer import Observer
from recyclery.observe.snapshot import Snapshot
from recyclery.state.board import Board

log = logging.getLogger("recyclery")

# The time that a stopping governor gives Grid sessions that are being ended.
GRID_FINISH_SECONDS = 2.0


@dataclass(eq=False)
class Executor:
    """Executes actions one after the other; only Grid sessions are ended in the background."""

    board: Board
    observer: Observer
    inbox: Inbox
    recorder: Recorder
    wake: Callable[[], None]
    perform: Callable[..., Awaitable[Outcome]] = perform

    def __post_init__(self) -> None:
        self._endings: set[asyncio.Task[Outcome]] = set()

    async def start(self, action: Action, snapshot: Snapshot) -> None:
        """Execute an action of a tick; the end of a Grid session may take seconds and is not waited for."""
        if not isinstance(action, actions.EndGridSession):
            await self.execute(action, snapshot)
            return
        # Else the next snapshot has it again.
        self.inbox.forget_session(action.owner, action.session)
        ending = asyncio.create_task(self.execute(action, snapshot))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def execute(self, action: Action, snapshot: Snapshot) -> Outcome:
        """Execute one action and record its outcome."""
        slots = {view.name: view.slot for view in snapshot.pools}
        runtime_dir = self.board.settings.runtime_dir
        try:
            outcome = await self.perform(action, runtime_dir, slots, self.observer.read_floor)
        except Exception as error:  # an error in one action must not prevent the others
            log.exception("%s", action.summary)
            outcome = Outcome(done=False, line=f"{action.summary}; failed: {error!r}", raised=True)
        is_news = not outcome.done or not action.is_routine
        log.log(logging.INFO if is_news else logging.DEBUG, "%s", outcome.line)
        if is_news:
            self.board.events.add(snapshot.at, outcome.line, done=outcome.done)
        self.board.ledger.record(action, outcome, snapshot.at)
        with logged_errors("the history"):
            self.recorder.record_action(action, outcome, snapshot)
        # Let the next snapshot show what the action has changed.
        match action:
            case actions.WorkerRequest() if outcome.done and action.expected_stat:
                # Taken as the worker's report until that includes it.
                self.inbox.workers.expect(action.request(slots)[0], **action.expected_stat)
            case actions.SupervisordRequest() if outcome.done:
                self.inbox.hurry()
                self.wake()
            case actions.Kill() if not outcome.raised:
                self.wake()
            case actions.RemoveFiles(leftover_files=left):
                self.observer.browser_files.postpone_removal([each.folder for each in left], snapshot.at)
        return outcome

    async def finish(self) -> None:
        """Wait for Grid sessions that are being ended, for at most GRID_FINISH_SECONDS."""
        if self._endings:
            await asyncio.wait(self._endings, timeout=GRID_FINISH_SECONDS)


@contextmanager
def logged_errors(what: str) -> Iterator[None]:
    """Log an exception and go on: the history and the like must not stop a tick."""
    try:
        yield
    except Exception:
        log.exception("%s failed", what)
