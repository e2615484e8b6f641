"""What is recorded of a task that kills its process: its runs, its deaths, and its message while it is parked.

To park a task is to set its message aside in Redis; a message moves in one transaction. `recyclery:parked` is a
hash, delivery tag to JSON of `ParkedTask`; `recyclery:deaths:ID` is a hash for each task that died, name of the
run to JSON of `Death`, which expires, but not while the task is parked.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from recyclery_worker.broker.connection import open_redis
from recyclery_worker.link import DeathReport

PARKED = "recyclery:parked"
# Long enough for a task that died and waits in a long queue; after that its deaths are forgotten.
DEATHS_KEPT_SECONDS = 7 * 24 * 3600


class Parked(Exception):
    """The result of a task that is parked, as its process died too often.

    Result backends store it by the name of this module, which therefore stays.
    """


class StartedRun(msgspec.Struct, frozen=True):
    """One run of a task, as it is recorded while it lasts.

    `name` identifies the run, whoever records its death: the message's delivery tag, which it keeps when it is
    given back, and how many deaths were recorded before.
    """

    name: str
    task_id: str
    pid: int | None = None  # Of the pool child; None where it was not yet known


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one run: when (seconds since the epoch), how, and where."""

    at: float
    how: str
    node: str
    pid: int | None = None
    tree_bytes: int | None = None  # Memory of the child and all it started, when last seen alive; None: unknown


class ParkedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that waits for a person's decision; `at` is in seconds since the epoch."""

    tag: str  # The message's delivery tag, which identifies it: a task id may be used twice
    task_id: str
    name: str  # As it is shown; the app knows it by its `type`
    type: str
    arguments: str
    at: float
    node: str
    queues: list[str]  # The queues it goes back to
    keys: list[str]  # The Redis lists of these queues for its priority, without the prefix
    message: msgspec.Raw  # As the broker's transport stores it


def name_run(tag: str, deaths_before: int = 0) -> str:
    """Return the name of a message's run; one that was never redelivered has no deaths before it."""
    return f"{tag}/{deaths_before}"


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def in_flight_key(generation_id: str) -> str:
    """Return the key of a generation's marks of tasks in flight, without the prefix."""
    return f"recyclery:{generation_id}:started"


def with_report(death: Death, report: DeathReport) -> Death:
    return msgspec.structs.replace(death, tree_bytes=report.tree_bytes, how=report.how or death.how)


_list_of_parked: msgspec.json.Decoder[ParkedTask] = msgspec.json.Decoder(ParkedTask)
_deaths: msgspec.json.Decoder[Death] = msgspec.json.Decoder(Death)


@dataclass(frozen=True)
class DeadLetterStore:
    """The store in one Redis; every method raises redis.RedisError when that does not answer."""

    # redis-py types every answer as one that may be awaitable.
    client: Any
    prefix: str = ""

    def record_death(self, run: StartedRun, death: Death) -> None:
        """Record a run's death; recording it again changes nothing."""
        key = self._deaths_key(run.task_id)
        with self.client.pipeline() as pipe:
            pipe.hsetnx(key, run.name, msgspec.json.encode(death))
            pipe.expire(key, DEATHS_KEPT_SECONDS)
            pipe.execute()

    def complete_death(self, report: DeathReport) -> None:
        """Add the governor's report to a death that is recorded; nothing where none is."""
        key = self._deaths_key(report.task_id)

        def add(pipe: Any) -> None:
            found = [(name, _deaths.decode(entry)) for name, entry in pipe.hgetall(key).items()]
            pipe.multi()
            for name, death in found:
                if death.pid == report.pid and death.tree_bytes is None:
                    pipe.hset(key, name, msgspec.json.encode(with_report(death, report)))

        self.client.transaction(add, key)

    def count_deaths(self, task_id: str) -> int:
        return int(self.client.hlen(self._deaths_key(task_id)))

    def list_deaths(self, task_id: str) -> list[Death]:
        entries = self.client.hvals(self._deaths_key(task_id))
        return sorted(map(_deaths.decode, entries), key=lambda death: death.at)

    def forget_deaths(self, task_id: str) -> None:
        self.client.delete(self._deaths_key(task_id))

    def park(self, task: ParkedTask, unacked_key: str, unacked_index_key: str) -> bool:
        """Move an unacknowledged message to the parked list; return whether it was still unacknowledged."""
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

        return bool(self.client.transaction(move, unacked, value_from_callable=True))

    def count_parked(self) -> int:
        return int(self.client.hlen(self.prefix + PARKED))

    def list_parked(self) -> list[ParkedTask]:
        entries = self.client.hvals(self.prefix + PARKED)
        return sorted(map(_list_of_parked.decode, entries), key=lambda task: task.at)

    def put_back(self, task: ParkedTask) -> bool:
        """Move a message to the end of its queues and forget its deaths; return whether it was parked."""
        # To the end, so that no other task has to wait for one that has killed its process before.
        return self.remove(task, task.keys)

    def remove(self, task: ParkedTask, keys: Iterable[str] = ()) -> bool:
        """Remove a message, for good or to `keys`, and forget its deaths; return whether it was parked."""
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

        return bool(self.client.transaction(move, parked, value_from_callable=True))

    def _deaths_key(self, task_id: str) -> str:
        return f"{self.prefix}recyclery:deaths:{task_id}"


def open_dead_letters(channel: Any) -> DeadLetterStore:
    return DeadLetterStore(*open_redis(channel))
