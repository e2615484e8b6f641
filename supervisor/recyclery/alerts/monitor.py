"""Evaluates the alert rules every few seconds and sends alerts that fire or resolve to the webhook.

Firing alerts are stored in the runtime folder, so a restarted governor neither repeats nor forgets them.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from recyclery.alerts.rules import (
    ALERT_KINDS,
    AlertState,
    Measurements,
    PoolMeasurements,
    Topic,
    find_conditions,
    update_alerts,
)
from recyclery.alerts.webhook import WebhookSender
from recyclery.common.pool_state import PoolState
from recyclery.config.secrets import read_webhook
from recyclery.config.settings import Settings
from recyclery.observe.queue_depths import read_depths
from recyclery.observe.snapshot import Snapshot
from recyclery.state.board import Board
from recyclery.state.task_stats import NO_TASKS, minus
from recyclery_worker.link import TaskTally

ALERT_CHECK_SECONDS = 5.0
# PID 1 gives the governor three seconds to exit, two of which may be needed for Grid sessions.
ALERTS_FINISH_SECONDS = 0.8

log = logging.getLogger("recyclery")


@dataclass(frozen=True, slots=True)
class AlertTotals:
    """Totals up to one moment."""

    at: float
    tasks: Mapping[str, TaskTally]
    restarts: Mapping[str, int]
    oom_kills: int
    parked: int


class Monitor:
    """The alert states, and the totals within the window. Without a webhook nothing is evaluated."""

    def __init__(self, settings: Settings, environment: Mapping[str, str] = os.environ) -> None:
        form = settings.alerts.format
        webhook = read_webhook(environment, form)
        self._sender = None if webhook is None else WebhookSender(webhook, form, os.uname().nodename)
        self._path = settings.runtime_dir / "alerts.json"
        self._states = load_firing(self._path)
        self._window: deque[AlertTotals] = deque()

    @property
    def dropped(self) -> int:
        """Messages that could not be delivered."""
        return 0 if self._sender is None else self._sender.dropped

    def count_firing(self) -> dict[str, int]:
        """Return how many alerts of each kind fire; nothing without a webhook."""
        if self._sender is None:
            return {}
        firing = [topic.kind for topic, state in self._states.items() if state.firing]
        return {kind: firing.count(kind) for kind in ALERT_KINDS}

    async def watch(self, board: Board) -> None:
        """Evaluate the rules every ALERT_CHECK_SECONDS until cancelled."""
        while self._sender is not None:
            await asyncio.sleep(ALERT_CHECK_SECONDS)
            if board.snapshot is not None:
                settings, snapshot = board.settings, board.snapshot
                depths = await asyncio.to_thread(read_depths, settings.pools, snapshot, board.broker)
                self.evaluate(settings, snapshot, count_until(board, snapshot), depths)

    def evaluate(
        self, settings: Settings, snapshot: Snapshot, counts: AlertTotals, depths: Mapping[str, int | None]
    ) -> None:
        """Evaluate the rules once and send what has changed."""
        if not self._window:
            # All totals but the kernel's began with this governor.
            self._window.append(replace(counts, tasks={}, restarts={}))
        self._window.append(counts)
        while counts.at - self._window[0].at > settings.alerts.window_seconds:
            self._window.popleft()
        measurements = build_measurements(settings, snapshot, depths, oldest=self._window[0], newest=counts)
        conditions = find_conditions(measurements, settings.alerts)
        self._states, alerts = update_alerts(self._states, conditions, measurements.at)
        for alert in alerts:
            state = "alert" if alert.firing else "well again"
            log.info("%s: %s: %s", state, " ".join(filter(None, alert.topic)), alert.text)
            if self._sender is not None:
                self._sender.send(alert)
        if alerts:
            self._store()

    async def finish(self) -> None:
        """Deliver the remaining messages for at most ALERTS_FINISH_SECONDS."""
        if self._sender is not None:
            await asyncio.to_thread(self._sender.finish, ALERTS_FINISH_SECONDS)

    def _store(self) -> None:
        firing = [topic for topic, state in self._states.items() if state.firing]
        try:
            self._path.write_bytes(msgspec.json.encode(firing))
        except OSError as error:
            log.warning("%s: %s; a restart would send these alerts again", self._path, error.strerror)


def load_firing(path: Path) -> dict[Topic, AlertState]:
    """Return the alerts that fired in the governor before this one; none where they cannot be read."""
    try:
        topics = msgspec.json.decode(path.read_bytes(), type=list[Topic])
    except (OSError, msgspec.DecodeError):
        return {}
    return {topic: AlertState(firing=True) for topic in topics}


def count_until(board: Board, snapshot: Snapshot) -> AlertTotals:
    return AlertTotals(
        at=snapshot.at,
        tasks=dict(board.task_stats.tasks),
        restarts=dict(board.task_stats.restarts),
        oom_kills=snapshot.container.oom_kills,
        parked=board.ledger.state.counters.parked,
    )


def build_measurements(
    settings: Settings,
    snapshot: Snapshot,
    depths: Mapping[str, int | None],
    *,
    oldest: AlertTotals,
    newest: AlertTotals,
) -> Measurements:
    """Return the input of the rules, with what was counted between the two totals."""
    states = {view.name: view.reported_state for view in snapshot.pools}
    return Measurements(
        at=newest.at,
        floor_bytes=snapshot.container.floor_bytes,
        limit_bytes=snapshot.container.limit_bytes,
        recent_oom_kills=newest.oom_kills - oldest.oom_kills,
        parked=newest.parked,
        pools=tuple(
            PoolMeasurements(
                name=pool.name,
                state=states.get(pool.name, PoolState.STOPPED),
                queue_depth=depths.get(pool.name),
                recent=minus(newest.tasks.get(pool.name, NO_TASKS), oldest.tasks.get(pool.name, NO_TASKS)),
                recent_restarts=newest.restarts.get(pool.name, 0) - oldest.restarts.get(pool.name, 0),
            )
            for pool in settings.pools
        ),
    )
