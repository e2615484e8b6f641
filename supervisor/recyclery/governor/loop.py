"""The governor's loop: observe, decide, act; the closer memory is to its limit, the shorter the pause."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from recyclery.act.cleanup import Sweeper
from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.decide.actions import Action, Outcome
from recyclery.decide.policy import decide
from recyclery.decide.policy_state import PolicyState
from recyclery.decide.pressure import LATE_TICK_SECONDS, poll_interval_seconds
from recyclery.governor.executor import Executor, logged_errors
from recyclery.governor.inbox import Inbox
from recyclery.health.heartbeat import HeartbeatWriter
from recyclery.history.recorder import Recorder
from recyclery.observe.observer import ExitWatcher, Observer, find_watched
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.observe.workers import forget_children
from recyclery.state.board import Board
from recyclery_worker.link import now

log = logging.getLogger("recyclery")

MIN_PAUSE_SECONDS = 0.1


@dataclass(eq=False)
class Governor:
    """Its collaborators are passed in, so that a tick can be tested without processes."""

    board: Board
    observer: Observer
    inbox: Inbox
    executor: Executor
    recorder: Recorder
    sweeper: Sweeper
    exits: ExitWatcher
    heart: HeartbeatWriter
    woken: asyncio.Event
    """Set when the next tick should start at once."""
    clock: Callable[[], float] = now

    def __post_init__(self) -> None:
        # An operator's command must not run between a tick's snapshot and its actions.
        self._acting = asyncio.Lock()
        self._stopping = False
        self._before: Snapshot | None = None
        self._children: set[Owner] = set()
        self._browsing_pools: set[str] = set()
        self._due: float | None = None
        self._was_late = False

    async def run(self) -> None:
        """Tick until stopped; one last tick cleans up after the pools."""
        while not self._stopping:
            await self.tick()
            self._beat()
            await self._pause()
        await self.tick()
        await self.executor.finish()

    async def tick(self) -> None:
        """Observe, decide, act."""
        await self.inbox.poll_programs()
        self.inbox.begin_polling_workers(self.board.model_store.trackers)
        async with self._acting:
            snapshot = self.observe()
            state = self._update(snapshot)
            for action in decide(snapshot, state, self.board.settings):
                await self.executor.start(action, snapshot)
            self.board.ledger.end(snapshot, state)
            if self.board.model_store.store_is_due(snapshot.at):
                await asyncio.to_thread(self.board.model_store.store, snapshot.at)

    def observe(self) -> Snapshot:
        """Return a snapshot of the container, the pools and all processes."""
        late = max(0.0, self.clock() - self._due) if self._due is not None else 0.0
        snapshot = self.observer.observe(self.inbox.views(), self.inbox.states, late)
        if self.board.snapshot is None:
            container = snapshot.container
            log.info("limit %d MiB from %s", container.limit_bytes >> 20, container.source)
        if late > LATE_TICK_SECONDS and not self._was_late:
            log.warning("this tick is %.1f s late: the container is throttled, or thrashes", late)
        self._was_late = late > LATE_TICK_SECONDS
        for child in snapshot.children:
            if any(process.is_browser for process in child.processes):
                self._browsing_pools.add(child.owner.pool)
        self.exits.watch(find_watched(snapshot))
        return snapshot

    def _update(self, snapshot: Snapshot) -> PolicyState:
        """Update all state by this snapshot; return that of the decision."""
        board, stats = self.board, self.inbox.workers.stats
        self._before, board.snapshot, board.worker_stats = board.snapshot, snapshot, stats
        children = {child.owner for child in snapshot.children}
        if children != self._children:
            self._children = children
            self.sweeper.hurry()
        self.sweeper.begin(snapshot.at)
        forget_children(self.inbox.states, children, snapshot.at)
        board.model_store.update(snapshot)
        for line in board.ledger.begin(snapshot, stats, board.model_store.models, board.settings):
            log.info("%s", line)
            board.events.add(snapshot.at, line)
        state = board.ledger.state
        board.task_stats.update(snapshot, stats.values(), state.counters.recycles)
        with logged_errors("the history"):
            self.recorder.record_snapshot(snapshot, state, board.settings)
        return state

    async def observe_now(self) -> Snapshot:
        """Observe for an operator, between two ticks."""
        await self.inbox.poll_programs()
        async with self._acting:
            return self.observe()

    async def act_now(self, choose: Callable[[Snapshot], Iterable[Action]]) -> tuple[Snapshot, list[Outcome]]:
        """Observe for an operator, between two ticks, and execute the chosen actions concurrently."""
        async with self._acting:
            snapshot = self.observe()
            executions = (self.executor.execute(action, snapshot) for action in choose(snapshot))
            return snapshot, await asyncio.gather(*executions)

    def apply_settings(self, settings: Settings) -> None:
        """Apply changed settings from the next tick on."""
        before = {pool.name: pool.max_tasks_per_child for pool in self.board.settings.pools}
        self.board.ledger.record_changed(
            {pool.name for pool in settings.pools if pool.max_tasks_per_child != before.get(pool.name)}
        )
        self.board.settings = self.observer.settings = self.inbox.settings = settings
        self.recorder.apply_settings(settings)
        self.woken.set()

    def reload(self, settings: Settings) -> None:
        """Apply settings that were read again, and retry replacements that failed under the old ones."""
        self.board.ledger.retry_replacements()
        self.inbox.hurry()
        self.apply_settings(settings)

    def receive(self, reports: socket.socket) -> None:
        """Read the reports; the end of a task in a pool with browsers starts a tick at once."""
        if self.inbox.receive(reports) & self._browsing_pools:
            self.woken.set()

    def handle_event(self) -> None:
        """Poll PID 1 at once: a process of it has changed."""
        self.inbox.hurry()
        self.woken.set()

    def stop(self) -> None:
        """End `run` after one more tick."""
        self._stopping = True
        self.woken.set()

    def _beat(self) -> None:
        snapshot, settings = self.board.snapshot, self.board.settings
        states = {view.name: view.reported_state for view in snapshot.pools} if snapshot else {}
        self.heart.beat({pool.name: states.get(pool.name, PoolState.NOT_KNOWN_YET) for pool in settings.pools})

    async def _pause(self) -> None:
        """Wait until the next tick is due or `woken` is set."""
        pause = poll_interval_seconds(self.board.snapshot, self._before, self.board.settings)
        self._due = self.clock() + pause
        await asyncio.sleep(min(pause, MIN_PAUSE_SECONDS))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, pause - MIN_PAUSE_SECONDS)):
                await self.woken.wait()
        self.woken.clear()
