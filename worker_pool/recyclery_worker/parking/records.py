"""The records of a task that kills its process: its runs and deaths, and its message while parked."""

import msgspec

from recyclery_worker.link import DeathReport


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
    tree_bytes: int | None = None
    """Memory of the pool child and all it started when last seen alive; None where that is not known."""


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
    """Format a count, for people."""
    return "once" if count == 1 else f"{count} times"


def in_flight_key(generation_id: str) -> str:
    """Return the key of a generation's marks of tasks in flight, without the prefix."""
    return f"recyclery:{generation_id}:started"


def with_report(death: Death, report: DeathReport) -> Death:
    """Return a death with what the governor reports of it."""
    return msgspec.structs.replace(death, tree_bytes=report.tree_bytes, how=report.how or death.how)
