"""What the governor has seen of children that died: it may speak before the death is noted, or after."""

from __future__ import annotations

from collections import deque

from recyclery_worker.link import Fell
from recyclery_worker.parking.records import Death, complete

KEPT = 100


class Seen:
    """The governor's last words on children that died."""

    def __init__(self) -> None:
        self._fell: deque[Fell] = deque(maxlen=KEPT)
        self._noted: deque[tuple[str, int | None]] = deque(maxlen=KEPT)

    def hear(self, fell: Fell) -> bool:
        """Keep what it saw; tell whether that death has been noted already, without it."""
        self._fell.append(fell)
        return (fell.task_id, fell.pid) in self._noted

    def complete(self, task_id: str, death: Death) -> Death:
        """Return a death that is to be noted with what the governor saw of it, if it has spoken."""
        self._noted.append((task_id, death.pid))
        for fell in self._fell:
            if (fell.task_id, fell.pid) == (task_id, death.pid):
                return complete(death, fell)
        return death


# The governor speaks to a worker's main process, and there is one in a process.
seen = Seen()
