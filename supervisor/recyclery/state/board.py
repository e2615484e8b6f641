"""The governor's state, as commands, the status, alerts, metrics and the web page read it."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from recyclery.config.settings import Settings
from recyclery.observe.queue_depths import Broker
from recyclery.observe.snapshot import Snapshot
from recyclery.state.ledger import Ledger
from recyclery.state.model_store import ModelStore
from recyclery.state.task_stats import TaskTotals
from recyclery_worker.link import WorkerStat

KEPT = 30


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A line of the log, its time, and whether the action succeeded."""

    at: float
    text: str
    done: bool


class EventLog:
    """The last KEPT lines of the log, for all who show it; a repeated one is there once, with its last time."""

    def __init__(self) -> None:
        self._last: deque[LoggedEvent] = deque(maxlen=KEPT)

    def add(self, at: float, text: str, *, done: bool = True) -> None:
        """Append a line."""
        if self._last and self._last[-1].text == text:
            self._last.pop()
        self._last.append(LoggedEvent(at, text, done))

    def newest_first(self) -> list[LoggedEvent]:
        """Return all lines."""
        return list(reversed(self._last.copy()))


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
