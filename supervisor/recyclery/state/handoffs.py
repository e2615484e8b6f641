"""Which pools are to have, or are getting, a new worker, and what came of the last time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from recyclery.act.outcome import Outcome
from recyclery.decide.actions import Abandon, Leave, Replace
from recyclery.observe.active_worker import is_up
from recyclery.observe.snapshot import Snapshot

# A successor that PID 1 was told to start is seen at the next look, unless PID 1 is busy.
SEEN_SECONDS = 10.0


@dataclass
class Successor:
    """One that was started to take over, and when; whether it was seen since."""

    slot: str
    at: float
    seen: bool = False


@dataclass
class Handoffs:
    """Times are those of the snapshots."""

    asked: dict[str, str] = field(default_factory=dict)
    """Pools whose worker a person wants replaced, and what the log is to say of it."""
    abandoned: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """Why a pool's last replacement came to nothing, in words."""
    _successors: dict[str, Successor] = field(default_factory=dict)

    def ask(self, pool: str) -> None:
        """Have a pool's worker replaced as soon as it can be."""
        self.asked[pool] = "asked to"
        self.failures.pop(pool, None)

    def retry(self) -> None:
        """Forget what failed: the settings are others now."""
        self.abandoned.clear()

    def is_under_way(self, pool: str) -> bool:
        """Tell whether a pool is to have a new worker, or one is about to take over."""
        return pool in self.asked or pool in self._successors

    def note(self, action: Replace | Leave | Abandon, outcome: Outcome, at: float) -> None:
        """Take down one step, and whether it was done."""
        match action:
            case Replace(pool=pool, successor=successor):
                self.asked.pop(pool, None)
                if not outcome.done:
                    self._fail(pool, outcome.line, at)
                elif successor is not None:
                    self._successors[pool] = Successor(successor, at)
            case Leave(pool=pool) if outcome.done:
                self._successors.pop(pool, None)
            case Abandon(pool=pool) if outcome.done:
                self._fail(pool, outcome.line, at)
            case _:
                pass

    def follow(self, snapshot: Snapshot) -> Iterator[str]:
        """Compare with what runs; yield a line for each successor that has gone before it took over."""
        for pool, successor in list(self._successors.items()):
            slots = (*snapshot.workers, *snapshot.vacant)
            view = next((view for view in slots if view.slot == successor.slot), None)
            if view is not None and is_up(view):
                successor.seen = True
                if view in snapshot.pools:
                    # The one that it was to follow died meanwhile.
                    del self._successors[pool]
            elif successor.seen or snapshot.at - successor.at > SEEN_SECONDS:
                ended = f": it {view.end}" if view is not None and view.end else ""
                line = (
                    f"{successor.slot} was to take over {pool} and did not stay up{ended}; the old one goes on"
                )
                self._fail(pool, line, snapshot.at)
                yield line

    def _fail(self, pool: str, line: str, at: float) -> None:
        self._successors.pop(pool, None)
        self.failures[pool] = line
        self.abandoned[pool] = at
