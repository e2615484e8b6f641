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
from pathlib import Path

import msgspec

from recyclery.act.perform import perform
from recyclery.config.settings import Settings
from recyclery.counters import Counters
from recyclery.decide.actions import Preempt, Reap, Replace, Retire
from recyclery.decide.ladder import Memory, decide
from recyclery.decide.model import PoolModel, learn, learn_idle
from recyclery.decide.tracks import Track, follow
from recyclery.init.programs import supervisor_socket
from recyclery.observe.engine import EngineAway, list_programs, read_events
from recyclery.observe.observer import Observer
from recyclery.observe.processes import Markers
from recyclery.observe.reports import ChildState, forget_children, hear_report, hear_worker
from recyclery.observe.snapshot import Owner, PoolView, Snapshot
from recyclery.observe.workers import Workers
from recyclery.serve.control import control_socket, serve_control
from recyclery.serve.document import build_status
from recyclery.serve.status import Status
from recyclery_worker.link import (
    MAX_PACKET_BYTES,
    VERSION,
    decode_report,
    governor_socket,
    now,
)

log = logging.getLogger("recyclery")

TICK_SECONDS = 1.0
# Near the limit a second is long: a browser takes 200 MB in one.
ALERT_TICK_SECONDS = 0.2
ALERT_SHARE = 0.7
LEAST_GAP_SECONDS = 0.1
PROGRAMS_EVERY_SECONDS = 10.0
WORKER_SILENT_SECONDS = 10.0


class Governor:
    """What the governor knows between ticks, and its loop."""

    def __init__(self, settings: Settings, run: str) -> None:
        self.settings = settings
        self.counters = Counters()
        self.snapshot: Snapshot | None = None
        self.workers = Workers(settings.runtime_dir, self._broker_answers)
        self._observer = Observer(settings=settings, markers=Markers(run))
        self._programs: dict[str, PoolView] = {}
        self._programs_due = 0.0
        self._stats_due = 0.0
        self._states: dict[Owner, ChildState] = {}
        self._tracks: dict[Owner, Track] = {}
        self._models: dict[str, PoolModel] = {}
        self._retired: dict[Owner, float] = {}
        self._replaced: dict[str, float] = {}
        self._preempted: float | None = None
        self._gone: dict[Owner, float] = {}
        self._browsing_pools: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._stopping = False

    async def run(self) -> None:
        """Serve until told to stop; one last look then takes away what the pools left."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop)
        loop.add_signal_handler(signal.SIGINT, self._stop)
        directory = self.settings.runtime_dir
        reports = bind_reports(governor_socket(directory))
        loop.add_reader(reports, self._hear, reports)
        server = await serve_control(control_socket(directory), self.status)
        events = asyncio.create_task(self._follow_events())
        log.info("watching %s", ", ".join(pool.name for pool in self.settings.pools))
        try:
            while not self._stopping:
                await self.tick()
                await self._pause()
            await self.tick()
        finally:
            events.cancel()
            server.close()
            loop.remove_reader(reports)
            reports.close()
            for path in (governor_socket(directory), control_socket(directory)):
                path.unlink(missing_ok=True)

    async def tick(self) -> None:
        """Observe, decide, act."""
        await self._ask_programs()
        self._begin_asking_workers()
        snapshot = self._observer.observe(
            {name: self.workers.describe(view) for name, view in self._programs.items()}, self._states
        )
        if self.snapshot is None:
            container = snapshot.container
            log.info("limit %d MiB from %s", container.limit_bytes >> 20, container.source)
        self._count(snapshot)
        self._learn(snapshot)
        self.snapshot = snapshot
        memory = Memory(
            models=self._models, retired=self._retired, replaced=self._replaced, preempted=self._preempted
        )
        for action in decide(snapshot, memory, self.settings):
            if isinstance(action, Retire):
                self._retired[action.owner] = snapshot.at
            elif isinstance(action, Replace):
                self._replaced[action.pool] = snapshot.at
            elif isinstance(action, Preempt):
                self._preempted = snapshot.at
                self.counters.preempted.add(action.owner)
            outcome = await perform(action, self.settings.runtime_dir)
            log.info("%s", outcome.line)
            if isinstance(action, Reap):
                self.counters.count_reaped(action.owner, action.processes)
                self._wake.set()
            if isinstance(action, Replace) and outcome.done:
                self.counters.count_replaced(action.pool)
            if not outcome.done and isinstance(action, Retire):
                del self._retired[action.owner]

    async def status(self) -> Status:
        """Return the status document; the dear readings are made in a thread."""
        if self.snapshot is None:
            await self.tick()
        assert self.snapshot is not None  # noqa: S101  # a tick makes one
        return await asyncio.to_thread(
            build_status, self.settings, self.snapshot, dict(self.workers.stats), self.counters
        )

    def _broker_answers(self) -> bool:
        """Tell whether the broker can be spoken to; blocks for a second or two when it cannot."""
        # Redis' client costs 10 MB: it is loaded when there is something to ask.
        from recyclery.observe.queues import Queues  # noqa: PLC0415

        return Queues(os.environ.get("RECYCLERY_BROKER_URL", "")).answers()

    def _stop(self) -> None:
        self._stopping = True
        self._wake.set()

    async def _pause(self) -> None:
        """Wait for the next tick, or for something worth an early one."""
        await asyncio.sleep(LEAST_GAP_SECONDS)
        container = self.snapshot.container if self.snapshot else None
        near = container is not None and container.floor_bytes > ALERT_SHARE * container.limit_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout((ALERT_TICK_SECONDS if near else TICK_SECONDS) - LEAST_GAP_SECONDS):
                await self._wake.wait()
        self._wake.clear()

    def _hear(self, reports: socket.socket) -> None:
        """Take in all datagrams that wait; a browser's pool gets a look as soon as a task of it ends."""
        with suppress(BlockingIOError):
            while True:
                try:
                    report = decode_report(reports.recv(MAX_PACKET_BYTES))
                except msgspec.DecodeError as error:
                    log.warning("a datagram that is no report was dropped: %s", error)
                    continue
                if report.version != VERSION:
                    log.warning("a report of version %d was dropped: ours is %d", report.version, VERSION)
                elif hear_report(self._states, report) and report.pool in self._browsing_pools:
                    self._wake.set()

    async def _follow_events(self) -> None:
        async for _ in read_events():
            self._programs_due = 0.0
            self._wake.set()

    async def _ask_programs(self) -> None:
        if now() < self._programs_due:
            return
        self._programs_due = now() + PROGRAMS_EVERY_SECONDS
        names = frozenset(pool.name for pool in self.settings.pools)
        try:
            self._programs = await asyncio.to_thread(
                list_programs, supervisor_socket(self.settings.runtime_dir), names
            )
        except EngineAway as error:
            log.debug("PID 1 does not tell its programs: %s", error)

    def _begin_asking_workers(self) -> None:
        """Ask beside the tick: a worker that is busy with its broker must not hold it up."""
        if now() >= self._stats_due and (self._asking is None or self._asking.done()):
            self._stats_due = now() + TICK_SECONDS
            self._asking = asyncio.create_task(self._ask_workers())

    async def _ask_workers(self) -> None:
        await self.workers.ask({name: view.pid for name, view in self._programs.items() if view.pid})
        owners = {owner.pid: owner for owner in self._tracks}
        for stat in self.workers.stats.values():
            hear_worker(self._states, owners, stat)

    def _count(self, snapshot: Snapshot) -> None:
        """Count children that have gone since the last look, by why they went."""
        before = {child.owner for child in self.snapshot.children} if self.snapshot else set()
        mains = {view.name: view.pid for view in self.snapshot.pools} if self.snapshot else {}
        living = {child.owner for child in snapshot.children}
        for owner in before - living:
            view = self._programs.get(owner.pool)
            # Children that went with their main process were not recycled.
            if view is not None and view.pid == mains.get(owner.pool) and view.state != "stopping":
                self._gone[owner] = snapshot.at
        # Why it went, its worker knows: wait for what it says after that.
        for owner, noticed in list(self._gone.items()):
            stat = self.workers.stats.get(owner.pool)
            if (stat is not None and stat.sent > noticed) or snapshot.at - noticed > WORKER_SILENT_SECONDS:
                departures = {left.pid: left.reason for left in stat.departures} if stat else {}
                self.counters.count_gone(owner, departures, self._retired)
                del self._gone[owner]
        kept = living | self._gone.keys()
        self._retired = {owner: at for owner, at in self._retired.items() if owner in kept}
        forget_children(self._states, living, snapshot.at)
        for child in snapshot.children:
            if any(process.is_browser for process in child.processes):
                self._browsing_pools.add(child.owner.pool)

    def _learn(self, snapshot: Snapshot) -> None:
        for child in snapshot.children:
            if child.task_id is None:
                model = self._models.get(child.owner.pool, PoolModel())
                self._models[child.owner.pool] = learn_idle(model, child.tree_bytes)
        self._tracks, runs = follow(self._tracks, snapshot)
        for run in runs:
            self._models[run.pool] = learn(self._models.get(run.pool, PoolModel()), run)


def bind_reports(path: Path) -> socket.socket:
    """Return the datagram socket that children report to, 0600; raises OSError."""
    reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    path.unlink(missing_ok=True)
    reports.bind(str(path))
    path.chmod(0o600)
    return reports


def load_settings(directory: Path) -> Settings:
    """Read the settings that PID 1 left in the runtime folder."""

    def to_path(kind: type, value: object) -> object:
        return Path(str(value)) if kind is Path else value

    return msgspec.json.decode((directory / "settings.json").read_bytes(), type=Settings, dec_hook=to_path)


def main() -> int:
    """Run the governor in the environment that PID 1 gives it."""
    settings = load_settings(Path(os.environ["RECYCLERY_RUNTIME_DIR"]))
    level = logging.DEBUG if settings.log_level == "debug" else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format="%(message)s")
    asyncio.run(Governor(settings, os.environ["RECYCLERY_RUN"]).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
