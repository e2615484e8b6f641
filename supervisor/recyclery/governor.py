"""The governor: observes, decides, acts, serves. It may die and be restarted at any time.

Started by PID 1 as supervisord's event listener: standard output belongs to that protocol, the log goes to
standard error.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from recyclery.act.outcome import Outcome
from recyclery.act.perform import perform
from recyclery.act.sweep import Sweeper
from recyclery.commands import list_commands
from recyclery.config.settings import Settings
from recyclery.config.stored import load_settings
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
from recyclery.decide.attention import LATE_SECONDS, next_look_seconds
from recyclery.decide.browsers import count_kinds
from recyclery.decide.ladder import decide
from recyclery.decide.reap import evict_strangers, find_reaps
from recyclery.heartbeat import Heart, tell_state
from recyclery.learning import Learning
from recyclery.ledger import Ledger
from recyclery.observe.broker import Broker
from recyclery.observe.deaths import Deaths, worth_watching
from recyclery.observe.engine import read_events
from recyclery.observe.hearsay import Hearsay
from recyclery.observe.observer import Observer
from recyclery.observe.processes import Markers
from recyclery.observe.reports import bind_reports
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.serve.control import Problem, Reaped, control_socket, serve_control
from recyclery.serve.document import build_status
from recyclery.serve.http import serve_http
from recyclery.serve.probes import list_probes
from recyclery.serve.recycle import Recycling, tell_recycling, why_not
from recyclery.serve.status import Status
from recyclery_worker.link import governor_socket, now

log = logging.getLogger("recyclery")

# As Celery's lines begin.
LOG_FORMATS = {
    "text": "[%(asctime)s] %(message)s",
    "json": "[%(asctime)s: %(levelname)s/governor] %(message)s",
}
LEAST_GAP_SECONDS = 0.1
# What is still to be ended on a Grid when the governor stops gets so long.
LAST_WORDS_SECONDS = 2.0


class Governor:
    """What the governor knows between ticks, and its loop."""

    def __init__(self, settings: Settings, run: str) -> None:
        self.settings = settings
        self.snapshot: Snapshot | None = None
        self.ledger = Ledger()
        self.broker = Broker(os.environ.get("RECYCLERY_BROKER_URL", ""))
        self.hearsay = Hearsay(settings, self.broker)
        self.learning = Learning(settings.state_dir / "models.json")
        self._observer = Observer(settings=settings, markers=Markers(run))
        self._browsing_pools: set[str] = set()
        self._wake = asyncio.Event()
        self._before: Snapshot | None = None
        self._children: set[Owner] = set()
        self._due: float | None = None
        self._was_late = False
        self._stopping = False
        self._sweeper = Sweeper()
        self._deaths = Deaths(self._wake.set)
        self._endings: set[asyncio.Task[Outcome]] = set()
        # An operator's command must not come between a tick's look and what it does.
        self._acting = asyncio.Lock()
        self._heart = Heart(settings.runtime_dir)
        self._dumping: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until told to stop; one last look then takes away what the pools left."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        directory = self.settings.runtime_dir
        reports = bind_reports(governor_socket(directory))
        loop.add_reader(reports, self._hear, reports)
        loop.add_signal_handler(signal.SIGHUP, self._reread)
        loop.add_signal_handler(signal.SIGUSR1, self._begin_dump)
        server = await serve_control(control_socket(directory), list_commands(self))
        events = asyncio.create_task(self._follow_events())
        http = asyncio.create_task(serve_http(self.settings.http, list_probes(self._heart)))
        log.info("watching %s", ", ".join(pool.name for pool in self.settings.pools))
        try:
            while not self._stopping:
                await self.tick()
                self._beat()
                await self._pause()
            await self.tick()
            if self._endings:
                await asyncio.wait(self._endings, timeout=LAST_WORDS_SECONDS)
        finally:
            self._deaths.close()
            events.cancel()
            http.cancel()
            server.close()
            loop.remove_reader(reports)
            reports.close()
            for path in (governor_socket(directory), control_socket(directory)):
                path.unlink(missing_ok=True)

    async def tick(self) -> None:
        """Observe, decide, act."""
        await self.hearsay.ask_programs()
        self.hearsay.begin_asking_workers(self.learning.tracks)
        async with self._acting:
            await self._tick()

    async def _tick(self) -> None:
        snapshot = self._observe()
        if {child.owner for child in snapshot.children} != self._children:
            self._children = {child.owner for child in snapshot.children}
            self._sweeper.hurry()
        self._sweeper.begin(snapshot.at)
        for line in self.ledger.begin(snapshot, self.hearsay.workers.stats, self.settings):
            log.info("%s", line)
        self.learning.take_in(snapshot)
        self.hearsay.forget(self._children, snapshot.at)
        past = self.ledger.past(self.learning.models, self.settings.memory.risk_percent / 100)
        self._before, self.snapshot = self.snapshot, snapshot
        for action in decide(snapshot, past, self.settings):
            await self._act(action, snapshot.at)
        self.ledger.end(snapshot, past)
        if self.learning.store_is_due(snapshot.at):
            await asyncio.to_thread(self.learning.store, snapshot.at)

    def _observe(self) -> Snapshot:
        late = max(0.0, now() - self._due) if self._due is not None else 0.0
        snapshot = self._observer.observe(self.hearsay.views(), self.hearsay.states, late)
        if self.snapshot is None:
            container = snapshot.container
            log.info("limit %d MiB from %s", container.limit_bytes >> 20, container.source)
        if late > LATE_SECONDS and not self._was_late:
            log.warning("this look comes %.1f s late: the container is throttled, or thrashes", late)
        self._was_late = late > LATE_SECONDS
        for child in snapshot.children:
            if any(process.is_browser for process in child.processes):
                self._browsing_pools.add(child.owner.pool)
        self._deaths.watch(worth_watching(snapshot))
        return snapshot

    def _beat(self) -> None:
        states = {view.name: tell_state(view) for view in self.snapshot.pools} if self.snapshot else {}
        self._heart.beat({pool.name: states.get(pool.name, "not known yet") for pool in self.settings.pools})

    def _begin_dump(self) -> None:
        self._dumping = asyncio.create_task(self._dump())

    async def _dump(self) -> None:
        """Print the status to the log."""
        from recyclery.report.status import format_status  # noqa: PLC0415

        for line in format_status(msgspec.to_builtins(await self.status())).splitlines():
            log.info("%s", line)

    async def _act(self, action: Action, at: float) -> None:
        if isinstance(action, Notice) and not self.ledger.is_news(action, at):
            return
        if isinstance(action, EndSession):
            # The other end may take its time; the next look must not tell of it again.
            state = self.hearsay.states[action.owner]
            remote = tuple(session for session in state.remote if session != action.session)
            self.hearsay.states[action.owner] = replace(state, remote=remote)
            ending = asyncio.create_task(self._carry_out(action, at))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            return
        await self._carry_out(action, at)

    async def _carry_out(self, action: Action, at: float) -> Outcome:
        outcome = await perform(action, self.settings.runtime_dir, self._slots(), self._observer.read_floor)
        # What goes well of itself, and often, is of no interest to a person.
        worth = self.ledger.is_news(action, at) and not isinstance(action, Collect | Clean)
        log.log(logging.INFO if worth or not outcome.done else logging.DEBUG, "%s", outcome.line)
        self.ledger.note(action, outcome, at)
        if outcome.done:
            self._foresee(action)
        if isinstance(action, Reap | Preempt | KillWorker | Evict):
            self._wake.set()
        if isinstance(action, Clean):
            self._observer.belongings.note_tried([left.folder for left in action.remains], at)
        return outcome

    def _foresee(self, action: Action) -> None:
        """Take what a worker was told for what it does, until it says so itself."""
        match action:
            case Replace() | Leave() | Abandon():
                self.hearsay.hurry()
                self._wake.set()
            case Hold(pool=pool, on=on):
                self.hearsay.workers.note_change(self._slots()[pool], holding=on)
            case Tune(pool=pool, max_tasks=max_tasks):
                self.hearsay.workers.note_change(self._slots()[pool], max_tasks_per_child=max_tasks)
            case Scale(pool=pool, concurrency=concurrency):
                self.hearsay.workers.note_change(self._slots()[pool], concurrency=concurrency)

    def _slots(self) -> dict[str, str]:
        """Return the slot of each pool's worker."""
        return {view.name: view.slot for view in self.snapshot.pools} if self.snapshot is not None else {}

    async def status(self) -> Status:
        """Return the status document; the dear readings are made in a thread."""
        while self.snapshot is None:
            # The first look is under way.
            await asyncio.sleep(LEAST_GAP_SECONDS)
        return await asyncio.to_thread(
            build_status,
            self.settings,
            self.snapshot,
            dict(self.hearsay.workers.stats),
            self.ledger,
            self.broker,
        )

    async def reap(self, *, strangers: bool) -> Reaped:
        """Look now and kill what a tick would; browsers that no pool started only where that is asked for."""
        async with self._acting:
            snapshot = self._observe()
            past = self.ledger.past(self.learning.models)
            evictions = evict_strangers(snapshot) if strangers else ()
            outcomes = await asyncio.gather(
                *(
                    self._carry_out(action, snapshot.at)
                    for action in (*find_reaps(snapshot, past, self.settings), *evictions)
                )
            )
        census = count_kinds(snapshot, past.silences, self.settings.browsers)
        return Reaped(
            killed=[outcome.line for outcome in outcomes],
            in_use=census.in_use,
            strangers=0 if strangers else census.strangers,
        )

    async def recycle(self, pool: str) -> Recycling | Problem:
        """Have a pool's worker replaced as soon as it can be; tell of the one that is to go."""
        await self.hearsay.ask_programs()
        async with self._acting:
            snapshot = self._observe()
        refusal = why_not(pool, snapshot, self.ledger.handoffs)
        if refusal is not None:
            return Problem(error=refusal)
        self.ledger.handoffs.ask(pool)
        self._wake.set()
        return tell_recycling(pool, snapshot, self.ledger.handoffs) or Problem(error=f"{pool} is gone")

    def recycling(self, pool: str) -> Recycling | Problem:
        """Tell how far a pool's replacement is."""
        found = tell_recycling(pool, self.snapshot, self.ledger.handoffs) if self.snapshot is not None else None
        return found or Problem(error=f"{pool!r} is not known yet")

    def _reread(self) -> None:
        self.ledger.handoffs.retry()
        self.hearsay.hurry()
        self.follow(load_settings(self.settings.runtime_dir))

    def follow(self, settings: Settings) -> None:
        """Go by other settings from the next tick on."""
        before = {pool.name: pool.max_tasks_per_child for pool in self.settings.pools}
        self.ledger.changed |= {
            pool.name for pool in settings.pools if pool.max_tasks_per_child != before.get(pool.name)
        }
        self.settings = self._observer.settings = self.hearsay.settings = settings
        self._wake.set()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _pause(self) -> None:
        """Wait for the next tick, or for something worth an early one."""
        pause = next_look_seconds(self.snapshot, self._before, self.settings)
        self._due = now() + pause
        await asyncio.sleep(min(pause, LEAST_GAP_SECONDS))
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, pause - LEAST_GAP_SECONDS)):
                await self._wake.wait()
        self._wake.clear()

    def _hear(self, reports: socket.socket) -> None:
        """Take in what children say; a browser's pool gets a look as soon as a task of it ends."""
        if self.hearsay.hear(reports) & self._browsing_pools:
            self._wake.set()

    async def _follow_events(self) -> None:
        async for _ in read_events():
            self.hearsay.hurry()
            self._wake.set()


def main() -> int:
    """Run the governor in the environment that PID 1 gives it."""
    settings = load_settings(Path(os.environ["RECYCLERY_RUNTIME_DIR"]))
    level = logging.DEBUG if settings.log_level == "debug" else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format=LOG_FORMATS[settings.log_format])
    asyncio.run(Governor(settings, os.environ["RECYCLERY_RUN"]).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
