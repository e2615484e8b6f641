"""What the governor knows, for all who read it: commands, the status, alerts, metrics, the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from recyclery.config.settings import Settings
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import Snapshot
from recyclery.state.event_log import EventLog
from recyclery.state.ledger import Ledger
from recyclery.state.model_store import ModelStore
from recyclery.state.task_stats import TaskStats
from recyclery_worker.link import WorkerStat


@dataclass
class Board:
    """Written by the loop alone. What threads read of it is frozen: a change puts another in its place."""

    settings: Settings
    broker: Broker
    ledger: Ledger
    model_store: ModelStore
    task_stats: TaskStats
    events: EventLog = field(default_factory=EventLog)
    worker_stats: Mapping[str, WorkerStat] = field(default_factory=dict)
    """What the workers last reported, by slot."""
    snapshot: Snapshot | None = None
    """The last tick's; None before the first."""
