"""The file that a tuning writes each window to: JSON lines, of which the first is the spec.

A tuning that was stopped goes on from there, and two of them can be compared.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from recyclery.decide.memory_model import PoolModel
from recyclery.tune.spec import Spec, TuningFailed
from recyclery.tune.window import OpenLoopWindow, Window

RUN_FILE_VERSION = 1


class Head(msgspec.Struct, tag="head"):
    """The first line."""

    version: int
    request: Spec


class Closed(msgspec.Struct, tag="window"):
    """A window in which tasks always waited."""

    window: Window
    learned: PoolModel
    """What the tasks had cost in memory up to its end."""


class Opened(msgspec.Struct, tag="open"):
    """A window in which tasks came at their own times."""

    window: OpenLoopWindow


class Ended(msgspec.Struct, tag="end"):
    """Nothing is missing, with these loads asked for."""

    loads: tuple[str, ...]


RunFileLine = Head | Closed | Opened | Ended


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What a run file holds."""

    spec: Spec
    windows: tuple[Window, ...] = ()
    opened: tuple[OpenLoopWindow, ...] = ()
    learned: PoolModel = field(default_factory=PoolModel)
    ended: frozenset[str] | None = None
    """The loads of a run that was measured to its end; None for one that was stopped."""

    def is_complete(self, spec: Spec) -> bool:
        """Return whether nothing of this is missing."""
        return self.ended is not None and self.ended.issuperset(spec.loads)


class RunFile:
    """A run file that is written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, spec: Spec) -> None:
        """Create the file; raises TuningFailed where there is one already, or none can be made."""
        self.add(Head(RUN_FILE_VERSION, spec), "xb", "; name another file with --out")

    def repair(self) -> None:
        """Remove a last line that was cut off, so that the next one begins where it should."""
        text = self.path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if whole != text:
            self.path.write_bytes(whole)

    def add(self, line: RunFileLine, mode: Literal["xb", "ab"] = "ab", advice: str = "") -> None:
        """Append a line; raises TuningFailed."""
        try:
            with self.path.open(mode) as file:
                file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            raise TuningFailed(f"{self.path}: {error.strerror}{advice}") from None


def read_run_file(path: Path) -> RecordedRun:
    """Return what a run file holds, without a last line that was cut off. Raises TuningFailed."""
    try:
        *lines, _ = path.read_bytes().split(b"\n")
    except OSError as error:
        raise TuningFailed(f"{path}: {error.strerror}") from None
    decoder = msgspec.json.Decoder(RunFileLine)
    try:
        head, *others = [decoder.decode(line) for line in lines]
    except (msgspec.DecodeError, ValueError) as error:
        raise TuningFailed(f"{path} is no run of `recyclery tune`: {error}") from None
    if not isinstance(head, Head):
        raise TuningFailed(f"{path} is no run of `recyclery tune`: its first line does not say what was asked")
    if head.version != RUN_FILE_VERSION:
        raise TuningFailed(
            f"{path} is of version {head.version}, and this one reads {RUN_FILE_VERSION}: "
            "use the one that wrote it"
        )
    closed = [line for line in others if isinstance(line, Closed)]
    return RecordedRun(
        spec=head.request,
        windows=tuple(line.window for line in closed),
        opened=tuple(line.window for line in others if isinstance(line, Opened)),
        learned=closed[-1].learned if closed else PoolModel(),
        ended=next((frozenset(line.loads) for line in reversed(others) if isinstance(line, Ended)), None),
    )
