"""The Redis of a run under faults, and what is in it at one moment."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

from recyclery_worker.delivery.registry import LEASES, Generation, Registry
from recyclery_worker.parking.records import DeadLetterStore
from support.kept_redis import KeptRedis
from support.stepped_clock import HAS_COMPILER, SteppedClock

TASK_ID = re.compile(rb'"correlation_id": "(\d+)"')
# Lists of messages, and hashes of those in hand.
CENSUS = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind = redis.call('TYPE', key)['ok']
  if kind == 'list' then
    for _, message in ipairs(redis.call('LRANGE', key, 0, -1)) do found[#found + 1] = message end
  elseif kind == 'hash' and string.find(key, 'unacked') then
    for _, message in ipairs(redis.call('HVALS', key)) do found[#found + 1] = message end
  end
end
return found
"""


class Store(KeptRedis):
    """The Redis that both containers share, on a host with a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self._clock = SteppedClock(folder)
        super().__init__(folder, self._clock.for_programs() if HAS_COMPILER else {})

    def step(self, step_seconds: float) -> bool:
        """Set its clock; return whether that can be done here."""
        if not HAS_COMPILER:
            return False
        self._clock.set(step_seconds)
        seconds: Any = self.client.time()
        assert abs(seconds[0] - time.time() - step_seconds) < 30, "Redis's clock did not step"
        return True

    def disconnect(self) -> int:
        """Close every connection but the one that says so; return how many."""
        client: Any = self.client
        kill = "CLIENT KILL SKIPME yes TYPE"
        return sum(client.execute_command(*kill.split(), kind) for kind in ("normal", "pubsub"))

    def parked(self) -> tuple[bytes, ...]:
        """Return the parked messages as they came."""
        tasks = DeadLetterStore(self.client).list_parked()
        return tuple(bytes(task.message) if task.raw is None else task.raw for task in tasks)

    def find_worker(self, box: str, pid: int) -> Generation | None:
        """Return the entry of a worker that is written down as alive."""
        registry = Registry(self.client)
        found = filter(None, map(registry.find, registry.leases()))
        return next((one for one in found if one.node.endswith(f"@{box}") and one.pid == pid), None)

    def holds(self, generation: Generation) -> int:
        """Return how many messages are a worker's."""
        return Registry(self.client).count_held(generation)

    def restart(self) -> None:
        """Stop it in order, and start it on the same port with the same data."""
        self.end()
        self.start()

    def there(self) -> set[int]:
        """Return the tasks that wait or are in hand."""
        messages: Any = self.client.eval(CENSUS, 0)
        return {int(found[1]) for message in messages if (found := TASK_ID.search(message))}

    def waiting(self, queue: str) -> int:
        """Return how many wait in a queue."""
        count: Any = self.client.llen(queue)
        return int(count)

    def leases(self) -> int:
        """Return how many workers are written down as alive."""
        count: Any = self.client.zcard(LEASES)
        return int(count)

    def keys(self) -> tuple[str, ...]:
        """Return the names of all keys."""
        names: Any = self.client.keys("*")
        return tuple(sorted(name.decode() for name in names))
