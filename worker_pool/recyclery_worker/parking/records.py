"""What is written down of a task whose runs ended in death: each of those deaths, and where it waits."""

from __future__ import annotations

import msgspec

from recyclery_worker.link import Fell


class Parked(Exception):
    """The result of a task that is parked: its runs ended in death too often."""


class Run(msgspec.Struct, frozen=True):
    """One run of a task, as written down while it lasts.

    `name` is the same for all who tell of this run, and no other's: the message's delivery tag, which it keeps
    when it is given back, and how many deaths had been noted before.
    """

    name: str
    task_id: str
    pid: int | None = None
    """Of the pool child; None where it was not known when this was written."""


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """The end of one run: when (seconds since the epoch), how, and where."""

    at: float
    how: str
    node: str
    pid: int | None = None
    tree_bytes: int | None = None
    """Memory of the pool child and all it started when last seen alive; None where nobody saw it."""


class ParkedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that waits for a person's decision; `at` is in seconds since the epoch."""

    tag: str
    """The message's delivery tag, which names it: a task id may be used twice."""
    task_id: str
    name: str
    """As it is shown; `type` is what the app knows it by."""
    type: str
    arguments: str
    at: float
    node: str
    queues: list[str]
    """The queues it goes back to."""
    keys: list[str]
    """Their lists in Redis, that of its priority each, without the prefix."""
    message: msgspec.Raw
    """As the broker's transport keeps it."""


def name_run(tag: str, deaths_before: int = 0) -> str:
    """Return the name of a message's run; one that was never redelivered has died of nothing before."""
    return f"{tag}/{deaths_before}"


def times(count: int) -> str:
    """Say how often, for people."""
    return "once" if count == 1 else f"{count} times"


def started_key(generation_id: str) -> str:
    """Return the name of a generation's marks, without the prefix."""
    return f"recyclery:{generation_id}:started"


def complete(death: Death, fell: Fell) -> Death:
    """Return a death with what the governor saw of it."""
    return msgspec.structs.replace(death, tree_bytes=fell.tree_bytes, how=fell.how or death.how)
