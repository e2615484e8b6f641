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

from recyclery.act.cleanup import Sweeper
from recyclery.alarm import Alarm
from recyclery.commands import list_commands
from recyclery.config.settings import Settings
from recyclery.config.stored import read_settings
from recyclery.decide.ladder import decide
from recyclery.decide.poll_interval import LATE_SECONDS, next_look_seconds
from recyclery.deeds import Deeds
from recyclery.health.heartbeat import Heart, tell_state
from recyclery.history.recorder import Recorder
from recyclery.learning import Learning
from recyclery.ledger import Ledger
from recyclery.observe.child_reports import bind_reports
from recyclery.observe.exits import Deaths, worth_watching
from recyclery.observe.hearsay import Hearsay
from recyclery.observe.observer import Observer
from recyclery.observe.processes import Markers, read_pss
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import Owner, Snapshot
from recyclery.observe.supervisord import read_events
from recyclery.recent import Recent
from recyclery.serve.control import control_socket, serve_control
from recyclery.serve.document import ReadPss, build_status, leave_unread
from recyclery.serve.status import Status
from recyclery.tallies import Tallies
from recyclery_worker.link import governor_socket, now

log = logging.getLogger("recyclery")

# As Celery's lines begin.
LOG_FORMATS = {
    "text": "[%(asctime)s] %(message)s",
    "json": "[%(asctime)s: %(levelname)s/governor] %(message)s",
}
LEAST_GAP_SECONDS = 0.1


class Governor:
    """What the governor knows between ticks, and its loop."""

    def __init__(self, settings: Settings, run: str) -> None:
        self.settings = settings
        self.snapshot: Snapshot | None = None
        self.ledger = Ledger()
        self.recent = Recent()
        self.tallies = Tallies(since=now())
        self.alarm = Alarm(settings)
        self.broker = Broker(os.environ.get("RECYCLERY_BROKER_URL", ""))
        self.recorder = Recorder(settings)
        self.hearsay = Hearsay(settings, self.broker, self.recorder.hear)
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
        self._deaths = Deaths(self.wake)
        self.deeds = Deeds(
            settings.runtime_dir,
            ledger=self.ledger,
            recorder=self.recorder,
            recent=self.recent,
            hearsay=self.hearsay,
            observer=self._observer,
            wake=self.wake,
        )
        # An operator's command must not come between a tick's look and what it does.
        self.acting = asyncio.Lock()
        self.heart = Heart(settings.runtime_dir)
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
        http = asyncio.create_task(self._serve_http())
        alarm = asyncio.create_task(self.alarm.watch(self))
        log.info("watching %s", ", ".join(pool.name for pool in self.settings.pools))
        try:
            while not self._stopping:
                await self.tick()
                self._beat()
                await self._pause()
            await self.tick()
            await self.deeds.finish()
            await self.alarm.finish()
        finally:
            self.recorder.close()
            self._deaths.close()
            events.cancel()
            http.cancel()
            alarm.cancel()
            server.close()
            loop.remove_reader(reports)
            reports.close()
            for path in (governor_socket(directory), control_socket(directory)):
                path.unlink(missing_ok=True)

    async def tick(self) -> None:
        """Observe, decide, act."""
        await self.hearsay.ask_programs()
        self.hearsay.begin_asking_workers(self.learning.tracks)
        async with self.acting:
            await self._tick()

    async def _tick(self) -> None:
        snapshot = self.observe()
        if {child.owner for child in snapshot.children} != self._children:
            self._children = {child.owner for child in snapshot.children}
            self._sweeper.hurry()
        self._sweeper.begin(snapshot.at)
        for line in self.ledger.begin(snapshot, self.hearsay.workers.stats, self.settings):
            log.info("%s", line)
            self.recent.note(snapshot.at, line)
        self.tallies.take_in(snapshot, self.hearsay.workers.stats.values(), self.ledger.counters.recycles)
        self.learning.take_in(snapshot)
        self.hearsay.forget(self._children, snapshot.at)
        past = self.ledger.past(self.learning.models, self.settings.memory.risk_percent / 100)
        self._before, self.snapshot = self.snapshot, snapshot
        self.recorder.look(snapshot, past, self.settings)
        for action in decide(snapshot, past, self.settings):
            await self.deeds.do(action, snapshot)
        self.ledger.end(snapshot, past)
        if self.learning.store_is_due(snapshot.at):
            await asyncio.to_thread(self.learning.store, snapshot.at)

    def observe(self) -> Snapshot:
        """Look at the container, the pools and all processes now."""
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
        self.heart.beat({pool.name: states.get(pool.name, "not known yet") for pool in self.settings.pools})

    def _begin_dump(self) -> None:
        self._dumping = asyncio.create_task(self._dump())

    async def _dump(self) -> None:
        """Print the status to the log."""
        from recyclery.cli.status import format_status  # noqa: PLC0415

        for line in format_status(msgspec.to_builtins(await self.status())).splitlines():
            log.info("%s", line)

    async def status(self) -> Status:
        """Return the status document; the dear readings are made in a thread."""
        return await self._describe(read_pss)

    async def glance(self) -> Status:
        """Return the status document without what is too dear for every second."""
        return await self._describe(leave_unread)

    async def _describe(self, pss_of: ReadPss) -> Status:
        while self.snapshot is None:
            # The first look is under way.
            await asyncio.sleep(LEAST_GAP_SECONDS)
        return await asyncio.to_thread(
            build_status,
            self.settings,
            self.snapshot,
            dict(self.hearsay.workers.stats),
            self.ledger,
            recent=self.recent,
            broker=self.broker,
            pss_of=pss_of,
        )

    def _reread(self) -> None:
        self.ledger.handoffs.retry()
        self.hearsay.hurry()
        self.follow(read_settings(self.settings.runtime_dir))

    def follow(self, settings: Settings) -> None:
        """Go by other settings from the next tick on."""
        before = {pool.name: pool.max_tasks_per_child for pool in self.settings.pools}
        self.ledger.changed |= {
            pool.name for pool in settings.pools if pool.max_tasks_per_child != before.get(pool.name)
        }
        self.settings = self._observer.settings = self.hearsay.settings = settings
        self.recorder.follow(settings)
        self.wake()

    def wake(self) -> None:
        """Have the next tick as soon as may be."""
        self._wake.set()

    def _stop(self) -> None:
        self._stopping = True
        self.wake()

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
            self.wake()

    async def _serve_http(self) -> None:
        if self.settings.http is not None:
            # What it takes costs memory, and few ask for it.
            from recyclery.serve.pages import serve_pages  # noqa: PLC0415

            await serve_pages(self, self.settings.http)

    async def _follow_events(self) -> None:
        async for _ in read_events():
            self.hearsay.hurry()
            self.wake()


def main() -> int:
    """Run the governor in the environment that PID 1 gives it."""
    settings = read_settings(Path(os.environ["RECYCLERY_RUNTIME_DIR"]))
    level = logging.DEBUG if settings.log_level == "debug" else logging.INFO
    logging.basicConfig(stream=sys.stderr, level=level, format=LOG_FORMATS[settings.log_format])
    asyncio.run(Governor(settings, os.environ["RECYCLERY_RUN"]).run())
    return 0


if __name__ == "__main__":
    sys.exit(main())
