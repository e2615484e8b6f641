"""What others say: PID 1 of its programs, workers and children of themselves, the broker of its queues."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace

from recyclery.common.pool_state import PoolState
from recyclery.config.settings import Settings
from recyclery.observe.child_reports import (
    ChildState,
    apply_report,
    apply_worker_stat,
    forget_children,
    read_reports,
)
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import Owner, PoolView
from recyclery.observe.supervisord import SupervisordUnavailable, list_workers
from recyclery.observe.workers import Workers
from recyclery.pid1.supervisord_conf import supervisor_socket
from recyclery_worker.link import ChildReport, Pulse, now

log = logging.getLogger("recyclery")

STATS_EVERY_SECONDS = 1.0
PROGRAMS_EVERY_SECONDS = 10.0


class Inbox:
    """The last word of each, asked for beside the tick: whoever is busy with the broker must not hold it up."""

    def __init__(
        self, settings: Settings, broker: Broker, told: Callable[[ChildReport], None] = lambda report: None
    ) -> None:
        self.settings = settings
        self.programs: dict[str, PoolView] = {}
        self.states: dict[Owner, ChildState] = {}
        self.workers = Workers(settings.runtime_dir, broker.answers)
        self._told = told
        self._programs_due = 0.0
        self._stats_due = 0.0
        self._asking: asyncio.Task[None] | None = None

    def views(self) -> dict[str, PoolView]:
        """Return the workers by slot, as all who know of them say."""
        queues = {pool.name: pool.queues for pool in self.settings.pools}
        return {
            slot: replace(
                self.workers.describe(view),
                queue_depth=self.workers.heartbeats.depth(view.pid or 0, queues[view.name]),
            )
            for slot, view in self.programs.items()
        }

    def hear(self, reports: socket.socket) -> set[str]:
        """Take in all datagrams that wait; return the pools of which a task has ended."""
        ended = set()
        for report in read_reports(reports):
            if isinstance(report, Pulse):
                self.workers.heartbeats.hear(report)
                continue
            self._told(report)
            if apply_report(self.states, report):
                ended.add(report.pool)
        return ended

    def forget(self, living: set[Owner], at: float) -> None:
        """Drop what is known of children that are gone."""
        forget_children(self.states, living, at)

    def forget_session(self, owner: Owner, session: str) -> None:
        """Drop a session on a Grid that is being ended."""
        state = self.states[owner]
        remote = tuple(other for other in state.remote if other != session)
        self.states[owner] = replace(state, remote=remote)

    def hurry(self) -> None:
        """Have PID 1 asked at the next tick: something has changed there."""
        self._programs_due = 0.0

    async def ask_programs(self) -> None:
        """Ask PID 1 for its programs, when that is due."""
        if now() < self._programs_due:
            return
        self._programs_due = now() + PROGRAMS_EVERY_SECONDS
        try:
            self.programs = await asyncio.to_thread(list_workers, supervisor_socket(self.settings.runtime_dir))
        except SupervisordUnavailable as error:
            log.debug("PID 1 does not tell its programs: %s", error)

    def begin_asking_workers(self, known: Iterable[Owner]) -> None:
        """Ask the workers, when that is due and none is still asked; `known` are the children seen."""
        if now() >= self._stats_due and (self._asking is None or self._asking.done()):
            self._stats_due = now() + STATS_EVERY_SECONDS
            self._asking = asyncio.create_task(self._ask_workers({owner.pid: owner for owner in known}))

    async def _ask_workers(self, owners: dict[int, Owner]) -> None:
        # One that drains answers no more, and that is well.
        asked = {
            slot: view.pid
            for slot, view in self.programs.items()
            if view.pid and view.state is not PoolState.DRAINING
        }
        await self.workers.ask(asked)
        for stat in self.workers.stats.values():
            apply_worker_stat(self.states, owners, stat)
