"""Gives messages back: from a worker's unacknowledged ones to the heads of their queues, a batch at a time.

The queues, the priority and the order are kombu's (kombu/transport/redis.py, Channel._do_restore_message); by
itself it needs some round trips and a transaction for each message. Their texts are made here: Redis's JSON
makes an empty list an object, and forgets digits.
"""

import functools
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from celery.utils.log import get_logger
from kombu.utils.json import dumps, loads
from redis.exceptions import NoPermissionError, ResponseError

from recyclery_worker.delivery.registry import Generation, Registry
from recyclery_worker.parking.poison import format_reason, is_broker_failure, log_parked, poisoned
from recyclery_worker.parking.records import open_dead_letters

logger = get_logger(__name__)

BATCH_MESSAGES = 200
BATCH_BYTES = 1 << 20
# In the headers of a task that waits for no time. Elsewhere in a message its quotes would be escaped.
NO_ETA = b'"eta": null'
# How Redis 6, 7 and others say that this user may not run scripts, or that they cannot.
REFUSALS = ("ACL failure in script", "The user executing the script can't", "unknown command")

# The first messages of some, as many as are small enough together: at least one.
READ_SCRIPT = """
local entries, bytes = {}, 0
for number = 2, #ARGV do
    bytes = bytes + redis.call('HSTRLEN', KEYS[1], ARGV[number])
    if number > 2 and bytes > tonumber(ARGV[1]) then
        break
    end
    entries[number - 1] = redis.call('HGET', KEYS[1], ARGV[number])
end
return entries
"""
# For each message its tag, when it was taken, its text and the number of its queues, which follow in KEYS. One
# that is gone or was taken again since, with the same tag, is left alone.
MOVE_SCRIPT = """
local moved, queue = 0, 3
for first = 1, #ARGV, 4 do
    local tag, taken_at, text, queues = unpack(ARGV, first, first + 3)
    local is_same = tonumber(redis.call('ZSCORE', KEYS[2], tag) or '') == tonumber(taken_at)
    local is_held = is_same and redis.call('HEXISTS', KEYS[1], tag) == 1
    for number = queue, queue + queues - 1 do
        if is_held then
            redis.call('RPUSH', KEYS[number], text)
        end
    end
    queue = queue + queues
    if is_held then
        redis.call('ZREM', KEYS[2], tag)
        redis.call('HDEL', KEYS[1], tag)
        moved = moved + 1
    end
end
return moved
"""
AHEAD_SCRIPT = """
for _, queue in ipairs(KEYS) do
    if redis.call('LREM', queue, -1, ARGV[1]) == 1 then
        redis.call('RPUSH', queue, ARGV[1])
    end
end
"""


def give_back(
    channel: Any,
    registry: Registry,
    generation: Generation,
    held: Mapping[str, float | None],
    begun: Collection[str] = (),
) -> int:
    """Give back some of what a generation holds (`Registry.held`, the newest first); return how many.

    Tasks are taken from the right, where the oldest must be outermost. What is due goes first, as somebody may
    have a place for it now, and is moved before the others again when all are there: these may be thousands
    that wait for their time. Any number of workers may do it at once, and any of them may die. Raises what
    kombu and redis raise when Redis is away.
    """
    mover = Mover(channel, registry, generation)
    due = mover.find_due(held, begun)
    waiting = {tag: taken_at for tag, taken_at in held.items() if tag not in due}
    texts = [mover.restore(tag) for tag in due] if waiting else []
    moved = mover.move_all({tag: held[tag] for tag in due}) + mover.move_all(waiting)
    mover.move_ahead(texts)
    return moved


def refuses_scripts(error: ResponseError) -> bool:
    return isinstance(error, NoPermissionError) or any(text in str(error) for text in REFUSALS)


def raw_tag(tag: str) -> bytes:
    """Return a tag as it is in Redis: `Registry.held` reads any bytes."""
    return tag.encode(errors="surrogateescape")


class Mover:
    """Moves messages of one generation; every method raises what kombu and redis raise when Redis is away."""

    def __init__(self, channel: Any, registry: Registry, generation: Generation) -> None:
        self._channel, self._client, self._prefix = channel, registry.client, registry.prefix
        self._registry, self._generation = registry, generation
        self._own = [registry.prefix + generation.keys[name] for name in ("unacked_key", "unacked_index_key")]
        self._find_queues = functools.cache(self._look_up_queues)

    def find_due(self, held: Iterable[str], begun: Collection[str]) -> dict[str, None]:
        """Return the messages that had begun or wait for no time, in their order; those that had begun last."""
        tags, due = list(held), set(begun)
        try:
            for batch in self.read_all(tags):
                due.update(tag for tag, entry in batch.items() if entry is not None and NO_ETA in entry)
        except ResponseError as error:
            if not refuses_scripts(error):
                raise
        return dict.fromkeys(sorted((tag for tag in tags if tag in due), key=begun.__contains__))

    def move_all(self, held: Mapping[str, float | None]) -> int:
        """Move messages, the newest first; return how many."""
        left, moved = dict(held), 0
        try:
            for batch in self.read_all(held):
                moved += self.move({tag: (held[tag], entry) for tag, entry in batch.items()})
                for tag in batch:
                    del left[tag]
        except ResponseError as error:
            if not refuses_scripts(error):
                raise
            moved += sum(self.move_one(tag, taken_at) for tag, taken_at in left.items())
        return moved

    def read_all(self, tags: Iterable[str]) -> Iterator[dict[str, bytes | None]]:
        """Read messages as they are kept, a batch at a time; None where one is gone."""
        left = deque(tags)
        while left:
            first = list(islice(left, BATCH_MESSAGES))
            entries = self._client.eval(READ_SCRIPT, 1, self._own[0], BATCH_BYTES, *map(raw_tag, first))
            yield {left.popleft(): entry for entry in entries}

    def move(self, messages: Mapping[str, tuple[float | None, bytes | None]]) -> int:
        """Move messages, by delivery tag with the time when each was taken; return how many."""
        keys, arguments = list(self._own), []
        for tag, (taken_at, entry) in messages.items():
            if (restored := self._restore(tag, entry)) is not None:
                text, queues = restored
                keys += queues
                arguments += [raw_tag(tag), "" if taken_at is None else taken_at, text, len(queues)]
        return int(self._client.eval(MOVE_SCRIPT, len(keys), *keys, *arguments))

    def move_one(self, name: str, taken_at: float | None) -> bool:
        """Do the same for one message without a script; return whether it was moved."""
        unacked, index = self._own
        tag = raw_tag(name)

        def move(pipe: Any) -> bool:
            restored = self._restore(name, pipe.hget(unacked, tag))
            # It reads by ZADD, as a user who may not ZSCORE has no script either.
            is_same = pipe.zadd(index, {tag: 0}, xx=True, incr=True) == taken_at
            pipe.multi()
            if restored is None or not is_same:
                return False
            text, queues = restored
            for key in queues:
                pipe.rpush(key, text)
            pipe.zrem(index, tag)
            pipe.hdel(unacked, tag)
            return True

        return bool(self._client.transaction(move, unacked, value_from_callable=True))

    def move_ahead(self, restored: Iterable[tuple[str, list[str]] | None]) -> None:
        """Move what was moved before to the head again, where it is still in its queues."""
        try:
            for text, queues in filter(None, restored):
                self._client.eval(AHEAD_SCRIPT, len(queues), *queues, text)
        except ResponseError as error:
            if not refuses_scripts(error):
                raise

    def restore(self, tag: str) -> tuple[str, list[str]] | None:
        """Return what `move` would write for a message, and to which keys; None where it is gone."""
        return self._restore(tag, self._client.hget(self._own[0], raw_tag(tag)))

    def _restore(self, tag: str, entry: bytes | None) -> tuple[str, list[str]] | None:
        """Return a message's text for its queues, and their keys; None where it is gone or cannot be read."""
        if entry is None:
            return None
        try:
            payload, exchange, routing_key = loads(entry.decode())
            for part in (payload.get("headers"), payload["properties"].get("delivery_info")):
                if isinstance(part, dict):
                    part["redelivered"] = True
            queues = self._find_queues(exchange, routing_key)
            priority = self._channel._get_message_priority(payload)
            keys = [self._prefix + self._channel._q_for_pri(queue, priority) for queue in queues]
            return dumps(payload), keys
        except Exception as error:
            if is_broker_failure(self._channel.connection, error):
                raise
            self._park(tag, entry, error)
            return None

    def _park(self, tag: str, entry: bytes, error: Exception) -> None:
        """Park what nobody can read, so that the others go, and its worker's keys with them."""
        shown = raw_tag(tag).decode(errors="backslashreplace")
        reason = f"it cannot be given back: {format_reason(error)}"
        try:
            unread = poisoned(entry, {}, tag=shown, headers={}, reason=reason, node=self._generation.node)
            own = (self._generation.keys[name] for name in ("unacked_key", "unacked_index_key"))
            open_dead_letters(self._channel).park_received(unread, *own)
            self._registry.forget(self._generation, [raw_tag(tag)])
        except ResponseError as problem:
            logger.error("the message %s cannot be given back: %r, nor parked: %s", shown, error, problem)
        else:
            log_parked(unread)

    def _look_up_queues(self, exchange: str, routing_key: str) -> Sequence[str]:
        """Return the queues of an exchange that get what is sent to it with a routing key."""
        if queues := self._channel._lookup(exchange, routing_key):
            return [*queues]
        # kombu takes an exchange for direct that this connection has not declared, and would drop the message.
        topics = [binding for binding in self._channel.get_table(exchange) if binding[1]]
        queues = self._channel.exchange_types["topic"].lookup(topics, exchange, routing_key, None)
        # Where a binding is gone, the routing key is most likely the queue's name.
        return [*queues] or [routing_key]
