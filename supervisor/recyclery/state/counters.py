"""What the governor counts while it lives."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field

from recyclery.observe.ownership import count_browsers
from recyclery.observe.snapshot import Owner, Process
from recyclery_worker.link import WorkerStat

KILLED_REMEMBERED = 500


@dataclass
class Counters:
    """Recycles by pool and reason, browsers reaped, sessions ended on a Grid."""

    reaped: int = 0
    grid_ended: int = 0
    recycles: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    parked: int = 0
    """Tasks that wait in the parked list, by the workers' own word."""
    reclaimed_by: dict[tuple[str, int], int] = field(default_factory=dict)
    """How many messages each worker has given back for dead ones, by its own word."""
    preempted: set[Owner] = field(default_factory=set)
    _killed: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=KILLED_REMEMBERED))

    def count_reaped(self, owner: Owner, processes: Iterable[Process]) -> None:
        """Count the browsers among killed processes; one that took a second kill is still one."""
        fresh = [process for process in processes if (process.pid, process.start_ticks) not in self._killed]
        self.reaped += count_browsers(fresh, owner.pid)
        self._killed.extend((process.pid, process.start_ticks) for process in fresh)

    def count_reclaimed(self, stats: Iterable[WorkerStat]) -> None:
        """Take down what the workers say they have given back."""
        self.reclaimed_by |= {(stat.pool, stat.pid): stat.reclaimed for stat in stats if stat.reclaimed}

    def count_parked(self, stats: Iterable[WorkerStat]) -> None:
        """Take down what the workers say is parked; all of them look at one list, some a little earlier."""
        self.parked = max((stat.parked for stat in stats), default=self.parked)

    @property
    def reclaimed(self) -> int:
        """Messages given back for dead workers."""
        return sum(self.reclaimed_by.values())

    def count_replaced(self, pool: str) -> None:
        """Count a worker that was replaced as a whole."""
        self.recycles[pool]["replace"] += 1

    def count_killed(self, pool: str) -> None:
        """Count a worker that hung and was killed."""
        self.recycles[pool]["hung"] += 1

    def count_gone(self, owner: Owner, departures: Mapping[int, str], retired: Container[Owner]) -> str:
        """Count a child that has gone; return why: preempt, budget (we retired it), its worker's word, died."""
        if owner in self.preempted:
            self.preempted.discard(owner)
            reason = "preempt"
        elif owner in retired:
            reason = "budget"
        else:
            reason = departures.get(owner.pid, "died")
        self.recycles[owner.pool][reason] += 1
        return reason
