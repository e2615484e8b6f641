"""The main processes' signs of life, by pid, and what follows from the last of each."""

from __future__ import annotations

from collections.abc import Iterable

from recyclery_worker.link import Pulse, now

# A sign of life comes every other second, and counts for so long.
COUNTS_SECONDS = 10.0
# When its broker is back, a loop needs a moment to be so too.
RETURN_SECONDS = 10.0
FORGOTTEN_SECONDS = 3600.0


class Pulses:
    """What threads of the main processes say, whatever their loops do."""

    def __init__(self) -> None:
        self._last: dict[int, Pulse] = {}
        self._away: dict[int, float] = {}

    def hear(self, pulse: Pulse) -> None:
        """Take in a sign of life."""
        self._last[pulse.pid] = pulse
        if pulse.broker_answers is False:
            self._away[pulse.pid] = pulse.sent

    def last(self, pid: int) -> Pulse | None:
        """Return the last sign of a process, however old."""
        return self._last.get(pid)

    def fresh(self, pid: int) -> Pulse | None:
        """Return the last sign of a process, if it still counts."""
        pulse = self._last.get(pid)
        return pulse if pulse is not None and now() - pulse.sent <= COUNTS_SECONDS else None

    def broker_was_away(self, pid: int) -> bool:
        """Tell whether a process has just found its broker away."""
        return pid in self._away and now() - self._away[pid] <= RETURN_SECONDS

    def depth(self, pid: int, queues: Iterable[str]) -> int | None:
        """Return how many messages wait in these queues; None where the process does not know."""
        pulse = self.fresh(pid)
        if pulse is None or pulse.waiting is None:
            return None
        return sum(pulse.waiting.get(queue, 0) for queue in queues)

    def forget(self) -> None:
        """Drop what is known of processes that have long been silent."""
        at = now()
        for pid in [pid for pid, pulse in self._last.items() if at - pulse.sent > FORGOTTEN_SECONDS]:
            del self._last[pid]
            self._away.pop(pid, None)
