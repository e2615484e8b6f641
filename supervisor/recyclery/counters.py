"""What the governor counts while it lives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from recyclery.observe.snapshot import Owner


@dataclass
class Counters:
    """Recycles by pool and reason, and browsers reaped."""

    reaped: int = 0
    recycles: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(int)))
    preempted: set[Owner] = field(default_factory=set)

    def count_gone(self, owner: Owner, departures: Mapping[int, str], retired: Container[Owner]) -> None:
        """Count one child that has gone: preempt, budget (we retired it), what its worker says, or died."""
        if owner in self.preempted:
            self.preempted.discard(owner)
            reason = "preempt"
        elif owner in retired:
            reason = "budget"
        else:
            reason = departures.get(owner.pid, "died")
        self.recycles[owner.pool][reason] += 1
