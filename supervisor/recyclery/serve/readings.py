"""Everything that the metrics tell, at one moment, gathered from the board."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass

from recyclery.alerts.monitor import Monitor
from recyclery.config.settings import Settings
from recyclery.decide.browsers import Census, count_kinds
from recyclery.decide.policy_state import Counters
from recyclery.observe.processes import read_pss
from recyclery.observe.queue_depths import read_depths
from recyclery.observe.snapshot import Snapshot
from recyclery.serve.document import read_cpu_seconds
from recyclery.state.board import Board
from recyclery.state.task_stats import TaskStats
from recyclery_worker.link import now


@dataclass(frozen=True)
class Readings:
    """One moment. `at` is the boot's clock, as the snapshot's."""

    at: float
    settings: Settings
    snapshot: Snapshot
    census: Census
    counters: Counters
    task_stats: TaskStats
    depths: Mapping[str, int | None]
    """Tasks that wait for each pool; None where that is not known."""
    governor_bytes: int
    governor_cpu_seconds: float
    alerts_firing: Mapping[str, int]
    """How many alerts of each kind stand."""
    alerts_dropped: int
    """Messages that nobody took."""


async def read_now(board: Board, monitor: Monitor) -> Readings:
    """Gather; what asks others is done in a thread. Raises LookupError before the first look."""
    snapshot, settings = board.snapshot, board.settings
    if snapshot is None:
        raise LookupError("the governor has not looked yet")
    depths = await asyncio.to_thread(read_depths, settings.pools, snapshot, board.broker)
    governor_bytes = await asyncio.to_thread(read_pss, os.getpid())
    return Readings(
        at=now(),
        settings=settings,
        snapshot=snapshot,
        census=count_kinds(snapshot, board.ledger.state.silences, settings.browsers),
        counters=board.ledger.state.counters,
        task_stats=board.task_stats,
        depths=depths,
        governor_bytes=governor_bytes,
        governor_cpu_seconds=read_cpu_seconds(),
        alerts_firing=monitor.count_firing(),
        alerts_dropped=monitor.dropped,
    )
