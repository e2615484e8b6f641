"""The Redis of a run under faults, and what is in it at one moment."""

from __future__ import annotations

import re
from typing import Any

from recyclery_worker.delivery.registry import LEASES
from support.kept_redis import KeptRedis

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
    """The Redis that both containers share."""

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
