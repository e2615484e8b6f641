"""What is recorded of a task that kills its process: its runs, its deaths, and its message while it is parked.

To park a task is to set its message aside in Redis; a message moves in one transaction. `recyclery:parked` is a
hash, delivery tag to JSON of `ParkedTask`. A message that is too large to be received is in a list of its own,
`recyclery:parked:TAG`. `recyclery:deaths:ID` is a hash for each task that died, name of the run to JSON of
`Death`, which expires, but not while the task is parked.
"""

import contextlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from recyclery_worker.broker.connection import is_wrong_type, open_redis
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
    beside: int = 0  # How many others ran in the worker that died: any of them may have caused it


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
    keys: list[str]  # The Redis lists of these queues for its priority, without the prefix; may be none
    message: msgspec.Raw  # As the broker's transport stores it; text where `raw` is set
    reason: str = ""  # Why its message cannot be handled; empty for a task whose runs ended in deaths
    raw: bytes | None = None  # The message where it is no JSON
    is_unread: bool = False  # Whether the message was too large to be received, and is in a list of its own


def name_run(tag: str, deaths_before: int = 0) -> str:
    """Return the name of a message's run; one that was never redelivered has no deaths before it."""
    return f"{tag}/{deaths_before}"


def count_caused(deaths: Iterable[Death]) -> int:
    """Return how many of its deaths a task is known to have caused."""
    return sum(not death.beside for death in deaths)


def visible(text: str) -> str:
    """Return text with its control characters as escapes: it comes from whoever sends messages."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def as_stored(item: bytes) -> tuple[msgspec.Raw, bytes | None]:
    """Return a message for `ParkedTask`: itself where it is JSON for all, else its text, and its bytes."""
    try:
        # No NaN, no nesting and no number that `parked show` could not print.
        json.dumps(json.loads(item), indent=2, allow_nan=False)
        msgspec.json.decode(item)
    except (ValueError, RecursionError):
        return msgspec.Raw(msgspec.json.encode(item.decode(errors="replace"))), item
    return msgspec.Raw(item), None


def times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def in_flight_key(generation_id: str) -> str:
    """Return the key of a generation's marks of tasks in flight, without the prefix."""
    return f"recyclery:{generation_id}:started"


def unread_key(tag: str) -> str:
    """Return the key of a parked message that was too large to be received, without the prefix."""
    return f"{PARKED}:{tag}"


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

    def probe(self) -> None:
        """Write and remove what counts a death; raises redis.NoPermissionError."""
        probe = StartedRun(name_run("probe"), "recyclery-probe")
        self.record_death(probe, Death(at=0.0, how="", node=""))
        self.list_deaths(probe.task_id)
        self.forget_deaths(probe.task_id)

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

    def list_deaths(self, task_id: str) -> list[Death]:
        deaths = []
        for entry in self.client.hvals(self._deaths_key(task_id)):
            with contextlib.suppress(msgspec.DecodeError):  # Not ours: it must not hide the others.
                deaths.append(_deaths.decode(entry))
        return sorted(deaths, key=lambda death: death.at)

    def forget_deaths(self, task_id: str) -> None:
        self.client.delete(self._deaths_key(task_id))

    def park(self, task: ParkedTask, unacked_key: str, unacked_index_key: str) -> bool:
        """Move an unacknowledged message to the parked list; return whether it was still unacknowledged."""
        unacked = self.prefix + unacked_key

        def move(pipe: Any) -> bool:
            self._count(pipe)
            held: bool = pipe.hexists(unacked, task.tag)
            pipe.multi()
            if held:
                pipe.hdel(unacked, task.tag)
                pipe.zrem(self.prefix + unacked_index_key, task.tag)
                pipe.hset(self.prefix + PARKED, task.tag, msgspec.json.encode(task))
                pipe.persist(self._deaths_key(task.task_id))
            return held

        return bool(self.client.transaction(move, unacked, self.prefix + PARKED, value_from_callable=True))

    def park_received(self, task: ParkedTask, unacked_key: str, unacked_index_key: str) -> None:
        """Add to the parked list what has just been taken from a queue, unacknowledged or not written yet."""

        def move(pipe: Any) -> None:
            self._count(pipe)
            pipe.multi()
            pipe.hset(self.prefix + PARKED, task.tag, msgspec.json.encode(task))
            pipe.hdel(self.prefix + unacked_key, task.tag)
            pipe.zrem(self.prefix + unacked_index_key, task.tag)

        self.client.transaction(move, self.prefix + PARKED)

    def count_parked(self) -> int:
        return self._count(self.client)

    def list_parked(self) -> list[ParkedTask]:
        if not self.count_parked():
            return []
        key, tasks = self.prefix + PARKED, []
        for field, entry in self.client.hgetall(key).items():
            try:
                tasks.append(_list_of_parked.decode(entry))
            except msgspec.DecodeError as error:
                what = f"the field {field!r} of {key} is not Recyclery's: HDEL it ({error})"
                raise ResponseError(what) from error
        return sorted(tasks, key=lambda task: task.at)

    def put_back(self, task: ParkedTask) -> bool:
        """Move a message to the end of its queues and forget its deaths; return whether it was parked."""
        if not task.keys:
            return False  # Nobody knows where it came from.
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
                if task.is_unread:
                    unread = self.prefix + unread_key(task.tag)
                    for key in keys:
                        pipe.rpoplpush(unread, self.prefix + key)
                    pipe.delete(unread)
                    return True
                for key in keys:
                    # Tasks are taken from the right.
                    pipe.lpush(self.prefix + key, bytes(task.message) if task.raw is None else task.raw)
            return found

        return bool(self.client.transaction(move, parked, value_from_callable=True))

    def _count(self, client: Any) -> int:
        """Count what is parked; raises where the key is no hash: a transaction would only do the rest."""
        key = self.prefix + PARKED
        try:
            return int(client.hlen(key))
        except ResponseError as error:
            if not is_wrong_type(error):
                raise
            way_out = f"DEL it, or RENAME it to keep what it holds ({error})"
            raise ResponseError(f"nothing can be parked, as {key} is not Recyclery's: {way_out}") from error

    def _deaths_key(self, task_id: str) -> str:
        return f"{self.prefix}recyclery:deaths:{task_id}"


def open_dead_letters(channel: Any) -> DeadLetterStore:
    return DeadLetterStore(*open_redis(channel))
