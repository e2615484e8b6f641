"""`python -m recyclery_worker.tuning.arrivals APP QUEUE SECONDS`: when tasks come to a queue in service.

Prints a line with seconds from the begin for each task, and takes none. A script in Redis looks at what came to
the queue since the last look, and at what workers have in hand; no body leaves Redis, only names of messages.
A task that comes, is taken and is done with between two looks is not seen.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from recyclery_worker.broker.connection import connected, serve
from recyclery_worker.delivery.registry import GENERATIONS, Book, open_book

LOOK_SECONDS = 0.005
GENERATIONS_SECONDS = 1.0
# From the newest message of each list (kombu puts at the left) to the newest that the last look saw; then
# those in hand, of which the transport keeps [message, exchange, routing key].
LOOK = r"""
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


class Watch:
    """Looks at one queue again and again."""

    def __init__(self, channel: Any, queue: str) -> None:
        self._book: Book = open_book(channel)
        self._queue = queue
        prefix = self._book.prefix
        self._lists = [prefix + channel._q_for_pri(queue, step) for step in channel.priority_steps]
        self._stock = prefix + channel.unacked_key
        self._newest = [""] * len(self._lists)
        self._seen: set[str] = set()
        self._hands: list[str] = []
        self._asked = 0.0
        self._look = self._book.client.register_script(LOOK)

    def look(self) -> int:
        """Return how many tasks came since the last look."""
        if time.monotonic() - self._asked > GENERATIONS_SECONDS:
            self._asked = time.monotonic()
            names: Any = self._book.client.hkeys(self._book.prefix + GENERATIONS)
            self._hands = [f"{self._book.prefix}recyclery:{name.decode()}:unacked" for name in names]
        found: Any = self._look(
            keys=[*self._lists, self._stock, *self._hands],
            args=[len(self._lists), self._queue, *self._newest],
        )
        came = 0
        for tag in map(bytes.decode, found):
            if tag.startswith("/"):
                _, number, newest = tag.split("/", 2)
                self._newest[int(number) - 1] = newest
            elif tag not in self._seen:
                self._seen.add(tag)
                came += 1
        return came


def record(channel: Any, queue: str, seconds: float, answer: int) -> int:
    """Write when tasks come, until it is over; return how many came."""
    watch = Watch(channel, queue)
    watch.look()
    began = time.monotonic()
    total = 0
    while (passed := time.monotonic() - began) < seconds:
        came = watch.look()
        total += came
        if came:
            os.write(answer, f"{passed:.3f}\n".encode() * came)
        time.sleep(LOOK_SECONDS)
    return total


def main() -> int:
    """Record what is named."""
    name, queue, seconds = sys.argv[1:]

    def work(app: Any, answer: int) -> None:
        with connected(app) as channel:
            head = f"# arrivals at {queue}, in seconds, looked at every {LOOK_SECONDS:g} s\n"
            os.write(answer, head.encode())
            total = record(channel, queue, float(seconds), answer)
        print(f"{total} tasks came", file=sys.stderr)

    try:
        return serve(name, work, else_say="the app's broker is not Redis, whose queues can be looked at")
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
