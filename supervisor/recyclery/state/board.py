"""The governor's state, as commands, the status, alerts, metrics and the web page read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recyclery.config.settings import Settings
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import Snapshot
from recyclery.state.event_log import EventLog
from recyclery.state.ledger import Ledger
from recyclery.state.model_store import ModelStore
from recyclery.state.task_stats import TaskTotals
from recyclery_worker.link import WorkerStat


@dataclass
class Board:
    """Written by the loop alone. Threads read only its frozen values, which a change replaces."""

    settings: Settings
    broker: Broker
    ledger: Ledger
    model_store: ModelStore
    task_stats: TaskTotals
    events: EventLog = field(default_factory=EventLog)
    worker_stats: Mapping[str, WorkerStat] = field(default_factory=dict)
    """What the workers last reported, by slot."""
    snapshot: Snapshot | None = None
    """The last tick's; None before the first."""
