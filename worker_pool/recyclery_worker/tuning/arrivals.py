"""`python -m recyclery_worker.tuning.arrivals APP QUEUE SECONDS`: record when tasks come to a queue.

Prints a line with the seconds since the start for each task, and takes none. A script in Redis reads what came
to the queue since the last poll, and what workers hold; only delivery tags leave Redis. A task that comes, is
taken and is done between two polls is not seen.
"""

import contextlib
import os
import sys
import time
from typing import Any

from recyclery_worker.broker.connection import connected, end_with, open_redis, run_program
from recyclery_worker.delivery.registry import GENERATIONS

ARRIVALS_POLL_SECONDS = 0.005
GENERATIONS_SECONDS = 1.0
# From the newest message of each list (kombu puts at the left) to the newest of the last poll; then the
# unacknowledged ones, which the transport stores as [message, exchange, routing key].
POLL = r"""
local tags, lists = {}, tonumber(ARGV[1])
for number = 1, lists do
    local newest = ARGV[2 + number]
    for place = 0, redis.call('LLEN', KEYS[number]) - 1 do
        local tag = string.match(redis.call('LINDEX', KEYS[number], place), '"delivery_tag": *"([^"]+)"')
        if tag == newest then break end
        if tag then tags[#tags + 1] = tag end
        if place == 0 then tags[#tags + 1] = '/' .. number .. '/' .. (tag or '') end
    end
end
local tail = '"' .. ARGV[2] .. '"]'
for number = lists + 1, #KEYS do
    local held = redis.call('HGETALL', KEYS[number])
    for place = 1, #held, 2 do
        if string.sub(held[place + 1], -#tail) == tail then tags[#tags + 1] = held[place] end
    end
end
return tags
"""


class QueueWatch:
    def __init__(self, channel: Any, queue: str) -> None:
        self._client, self._prefix = open_redis(channel)
        self._queue = queue
        self._lists = [self._prefix + channel._q_for_pri(queue, step) for step in channel.priority_steps]
        self._default_unacked = self._prefix + channel.unacked_key
        self._newest = [""] * len(self._lists)
        self._seen: set[str] = set()
        self._unacked: list[str] = []
        self._asked = 0.0
        self._poll = self._client.register_script(POLL)

    def poll(self) -> int:
        """Return how many tasks came since the last poll."""
        if time.monotonic() - self._asked > GENERATIONS_SECONDS:
            self._asked = time.monotonic()
            names: Any = self._client.hkeys(self._prefix + GENERATIONS)
            self._unacked = [f"{self._prefix}recyclery:{name.decode()}:unacked" for name in names]
        found: Any = self._poll(
            keys=[*self._lists, self._default_unacked, *self._unacked],
            args=[len(self._lists), self._queue, *self._newest],
        )
        seen_before = len(self._seen)
        for tag in map(bytes.decode, found):
            if tag.startswith("/"):
                _, number, newest = tag.split("/", 2)
                self._newest[int(number) - 1] = newest
            else:
                self._seen.add(tag)
        return len(self._seen) - seen_before


def main() -> int:
    name, queue, seconds = sys.argv[1:]

    def work(app: Any, output: int) -> None:
        with connected(app) as channel:
            head = f"# arrivals at {queue}, in seconds, looked at every {ARRIVALS_POLL_SECONDS:g} s\n"
            os.write(output, head.encode())
            watch = QueueWatch(channel, queue)
            watch.poll()
            began, total = time.monotonic(), 0
            while (passed := time.monotonic() - began) < float(seconds):
                if came := watch.poll():
                    total += came
                    os.write(output, f"{passed:.3f}\n".encode() * came)
                time.sleep(ARRIVALS_POLL_SECONDS)
        print(f"{total} tasks came", file=sys.stderr)

    with contextlib.suppress(KeyboardInterrupt):
        reason = "the app's broker is not Redis, whose queues can be looked at"
        return run_program(name, work, without_redis=reason)
    return 0


if __name__ == "__main__":
    end_with(main)
