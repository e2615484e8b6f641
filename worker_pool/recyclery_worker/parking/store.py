"""The parked list and the deaths of tasks in Redis; every move of a message is one transaction (MULTI).

`recyclery:parked` is a hash, delivery tag to JSON of `ParkedTask`; `recyclery:deaths:ID` a hash for each task
that died, name of the run to JSON of `Death`: it is forgotten with time, but not while the task is parked.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from recyclery_worker.broker.connection import open_redis
from recyclery_worker.link import Fell
from recyclery_worker.parking.records import Death, ParkedTask, Run, complete

PARKED = "recyclery:parked"
# For a task that died and waits in a long queue; counted anew after that.
DEATHS_KEPT_SECONDS = 7 * 24 * 3600

_list_of_parked: msgspec.json.Decoder[ParkedTask] = msgspec.json.Decoder(ParkedTask)
_deaths: msgspec.json.Decoder[Death] = msgspec.json.Decoder(Death)


@dataclass(frozen=True)
class Lot:
    """One Redis's; every method raises redis.RedisError when that does not answer."""

    client: redis.Redis
    prefix: str = ""

    def note_death(self, run: Run, death: Death) -> None:
        """Write a run's death down; whoever tells of it again adds nothing."""
        key = self._deaths_key(run.task_id)
        with self.client.pipeline() as pipe:
            pipe.hsetnx(key, run.name, msgspec.json.encode(death))
            pipe.expire(key, DEATHS_KEPT_SECONDS)
            pipe.execute()

    def complete_death(self, fell: Fell) -> None:
        """Add what the governor saw to a death that is written down; nothing where none is."""
        key = self._deaths_key(fell.task_id)

        def add(pipe: Any) -> None:
            found = [(name, _deaths.decode(entry)) for name, entry in pipe.hgetall(key).items()]
            pipe.multi()
            for name, death in found:
                if death.pid == fell.pid and death.tree_bytes is None:
                    pipe.hset(key, name, msgspec.json.encode(complete(death, fell)))

        self.client.transaction(add, key)

    def count_deaths(self, task_id: str) -> int:
        """Return how many deaths of a task are written down."""
        return int(self._typed.hlen(self._deaths_key(task_id)))

    def list_deaths(self, task_id: str) -> list[Death]:
        """Return a task's deaths, the first one first."""
        entries = self._typed.hvals(self._deaths_key(task_id))
        return sorted(map(_deaths.decode, entries), key=lambda death: death.at)

    def forget_deaths(self, task_id: str) -> None:
        """Count a task's deaths anew."""
        self.client.delete(self._deaths_key(task_id))

    def park(self, task: ParkedTask, unacked_key: str, unacked_index_key: str) -> bool:
        """Move a message from those in hand to the parked list; tell whether it was still in hand."""
        unacked = self.prefix + unacked_key

        def move(pipe: Any) -> bool:
            held: bool = pipe.hexists(unacked, task.tag)
            pipe.multi()
            if held:
                pipe.hdel(unacked, task.tag)
                pipe.zrem(self.prefix + unacked_index_key, task.tag)
                pipe.hset(self.prefix + PARKED, task.tag, msgspec.json.encode(task))
                pipe.persist(self._deaths_key(task.task_id))
            return held

        return bool(self._typed.transaction(move, unacked, value_from_callable=True))

    def count_parked(self) -> int:
        """Return how many tasks are parked."""
        return int(self._typed.hlen(self.prefix + PARKED))

    def list_parked(self) -> list[ParkedTask]:
        """Return the tasks that are parked, the first one first."""
        entries = self._typed.hvals(self.prefix + PARKED)
        return sorted(map(_list_of_parked.decode, entries), key=lambda task: task.at)

    def put_back(self, task: ParkedTask) -> bool:
        """Move a message to the end of its queues, its deaths forgotten; tell whether it was parked.

        It waits its turn there: nobody else is to wait for a task that has killed its process before.
        """
        return self._take_out(task, task.keys)

    def remove(self, task: ParkedTask) -> bool:
        """Take a message from the list for good, its deaths forgotten; tell whether it was parked."""
        return self._take_out(task, ())

    def _take_out(self, task: ParkedTask, keys: Iterable[str]) -> bool:
        parked = self.prefix + PARKED

        def move(pipe: Any) -> bool:
            found: bool = pipe.hexists(parked, task.tag)
            pipe.multi()
            if found:
                pipe.hdel(parked, task.tag)
                pipe.delete(self._deaths_key(task.task_id))
                for key in keys:
                    # Tasks are taken from the right.
                    pipe.lpush(self.prefix + key, bytes(task.message))
            return found

        return bool(self._typed.transaction(move, parked, value_from_callable=True))

    def _deaths_key(self, task_id: str) -> str:
        return f"{self.prefix}recyclery:deaths:{task_id}"

    @property
    def _typed(self) -> Any:
        # redis-py types every answer as one that may have to be awaited.
        return self.client


def open_lot(channel: Any) -> Lot:
    """Return the lot in the Redis of one of kombu's channels."""
    return Lot(*open_redis(channel))
