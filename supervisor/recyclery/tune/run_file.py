"""The file that a tuning writes each window to: JSON lines, the first says what was asked.

A tuning that was stopped goes on from there, and two of them can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from recyclery.decide.memory_model import PoolModel
from recyclery.tune.open_loop import OpenWindow
from recyclery.tune.request import Request
from recyclery.tune.windows import Window

VERSION = 1


class Head(msgspec.Struct, tag="head"):
    """The first line."""

    version: int
    request: Request


class Closed(msgspec.Struct, tag="window"):
    """A window in which tasks always waited."""

    window: Window
    learned: PoolModel
    """What the tasks had cost in memory up to its end."""


class Opened(msgspec.Struct, tag="open"):
    """A window in which tasks came at their own times."""

    window: OpenWindow


class Ended(msgspec.Struct, tag="end"):
    """Nothing is missing, with these loads asked for."""

    loads: tuple[str, ...]


Line = Head | Closed | Opened | Ended


class BadRunFile(Exception):
    """The file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a run file holds."""

    request: Request
    windows: tuple[Window, ...]
    opened: tuple[OpenWindow, ...]
    learned: PoolModel = field(default_factory=PoolModel)
    ended: frozenset[str] | None = None
    """The loads of a run that was measured to its end; None of one that was stopped."""

    def is_whole(self, request: Request) -> bool:
        """Tell whether nothing of this is missing."""
        return self.ended is not None and self.ended.issuperset(request.loads)


class RunFile:
    """A run file that is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, request: Request) -> None:
        """Make the file; raises BadRunFile where there is one already, or none can be."""
        try:
            with self.path.open("xb") as file:
                file.write(encode(Head(VERSION, request)))
        except OSError as error:
            raise BadRunFile(f"{self.path}: {error.strerror}; name another file with --out") from None

    def add(self, line: Closed | Opened | Ended) -> None:
        """Append a line; raises BadRunFile."""
        try:
            with self.path.open("ab") as file:
                file.write(encode(line))
        except OSError as error:
            raise BadRunFile(f"{self.path}: {error.strerror}") from None


def encode(line: Line) -> bytes:
    """Return a line of the file."""
    return msgspec.json.encode(line) + b"\n"


def read_run_file(path: Path) -> Recorded:
    """Return what a run file holds; a last line that was cut off is left out. Raises BadRunFile."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise BadRunFile(f"{path}: {error.strerror}") from None
    decoder = msgspec.json.Decoder(Line)
    try:
        head, *others = [decoder.decode(line) for line in lines]
    except (msgspec.DecodeError, ValueError) as error:
        raise BadRunFile(f"{path} is no run of `recyclery tune`: {error}") from None
    if not isinstance(head, Head):
        raise BadRunFile(f"{path} is no run of `recyclery tune`: its first line does not say what was asked")
    if head.version != VERSION:
        raise BadRunFile(
            f"{path} is of version {head.version}, and this one reads {VERSION}: use the one that wrote it"
        )
    closed = [line for line in others if isinstance(line, Closed)]
    return Recorded(
        request=head.request,
        windows=tuple(line.window for line in closed),
        opened=tuple(line.window for line in others if isinstance(line, Opened)),
        learned=closed[-1].learned if closed else PoolModel(),
        ended=next((frozenset(line.loads) for line in reversed(others) if isinstance(line, Ended)), None),
    )


def mend(path: Path) -> None:
    """Take away a last line that was cut off, so that the next one begins where it should."""
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if whole != text:
        path.write_bytes(whole)
