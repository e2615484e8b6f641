"""What a tuning asks of the process that sends its tasks, and what that answers: a JSON object in each line."""

from __future__ import annotations

import msgspec


class Fill(msgspec.Struct, tag="fill"):
    """Keep at least so many tasks waiting."""

    marks: str
    least: int


class Arrive(msgspec.Struct, tag="arrive"):
    """Send a task at each of these times, in seconds of CLOCK_BOOTTIME."""

    marks: str
    due: list[float]


class Rest(msgspec.Struct, tag="rest"):
    """Send nothing more; answered with what still waits, and what tasks have sent."""


class Sweep(msgspec.Struct, tag="sweep"):
    """Remove all that is left of a level whose worker has ended."""


class Quit(msgspec.Struct, tag="quit"):
    """Remove everything, and end."""


class Answer(msgspec.Struct, omit_defaults=True):
    """What became of an order."""

    error: str = ""
    waiting: int = 0
    sent_by_tasks: int = 0
    removed: int = 0
    cleaned: list[str] = []
    """Dead tunings whose keys were removed, at the start."""


Order = Fill | Arrive | Rest | Sweep | Quit
