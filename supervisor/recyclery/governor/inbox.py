"""The latest status reported by PID 1, the workers and their children."""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.config.paths import supervisord_socket
from recyclery.config.settings import Settings
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import ChildState, Owner, PoolView
from recyclery.observe.supervisord import SupervisordUnavailable, list_workers
from recyclery.observe.workers import Workers, apply_report, apply_worker_stat, read_reports
from recyclery_worker.link import ChildReport, WorkerHeartbeat, now

log = logging.getLogger("recyclery")

STATS_EVERY_SECONDS = 1.0
PROGRAMS_EVERY_SECONDS = 10.0


class Inbox:
    """Polled outside the tick, so that a blocked worker cannot delay it."""

    def __init__(
        self,
        settings: Settings,
        broker: Broker,
        on_report: Callable[[ChildReport], None] = lambda report: None,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self.programs: dict[str, PoolView] = {}
        self.states: dict[Owner, ChildState] = {}
        self.workers = Workers(settings.runtime_dir, broker.answers)
        self._on_report = on_report
        self._wake = wake
        self._programs_due = 0.0
        self._stats_due = 0.0
        self._polling: asyncio.Task[None] | None = None

    def views(self) -> dict[str, PoolView]:
        """Return the workers by slot: PID 1's view, with what the workers report."""
        queues = {pool.name: pool.queues for pool in self.settings.pools}
        return {
            slot: replace(
                self.workers.describe(view),
                queue_depth=self.workers.heartbeats.depth(view.pid or 0, queues[view.name]),
            )
            for slot, view in self.programs.items()
        }

    def receive(self, reports: socket.socket) -> set[str]:
        """Read all waiting datagrams; return the pools in which a task has ended."""
        ended = set()
        for report in read_reports(reports):
            if isinstance(report, WorkerHeartbeat):
                if report.pid not in self.workers.heartbeats.last:
                    # What a dead worker held waits for one that can give it back.
                    self._stats_due = 0.0
                    self._wake()
                self.workers.heartbeats.record(report)
                continue
            self._on_report(report)
            if apply_report(self.states, report):
                ended.add(report.pool)
        return ended

    def forget_session(self, owner: Owner, session: str) -> None:
        """Drop a Grid session that is being ended."""
        # A child that has not reported for a minute is forgotten already, with its sessions.
        if (state := self.states.get(owner)) is not None:
            remote = tuple(other for other in state.remote if other != session)
            self.states[owner] = replace(state, remote=remote)

    def hurry(self) -> None:
        """Poll PID 1 at the next tick: something has changed there."""
        self._programs_due = 0.0

    async def poll_programs(self) -> None:
        """Poll PID 1 for the workers' processes, if due."""
        if now() < self._programs_due:
            return
        self._programs_due = now() + PROGRAMS_EVERY_SECONDS
        try:
            self.programs = await asyncio.to_thread(list_workers, supervisord_socket(self.settings.runtime_dir))
        except SupervisordUnavailable as error:
            log.debug("PID 1 does not list its programs: %s", error)

    def begin_polling_workers(self, known: Iterable[Owner]) -> None:
        """Start polling the workers, if due and no poll is running; `known` are the observed children."""
        if now() >= self._stats_due and (self._polling is None or self._polling.done()):
            self._stats_due = now() + STATS_EVERY_SECONDS
            self._polling = asyncio.create_task(self._poll_workers({owner.pid: owner for owner in known}))

    async def _poll_workers(self, owners: dict[int, Owner]) -> None:
        views = self.programs.items()
        # A draining worker does not answer.
        running = {slot: view.pid for slot, view in views if view.pid and view.state is not PoolState.DRAINING}
        before = {stat.pid for stat in self.workers.stats.values()}
        await self.workers.poll(running)
        if not {stat.pid for stat in self.workers.stats.values()} <= before:
            self._wake()
        for stat in self.workers.stats.values():
            apply_worker_stat(self.states, owners, stat)
