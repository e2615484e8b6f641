"""The sites whose memory grew over a task's runs, and the messages that a traced child sends about them.

After each run it sends one line of JSON to the socket of the command that waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A place in the code. `function` is empty where the tracer does not report it."""

    file: str
    line: int
    function: str = ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where memory was allocated that is still held: the frames, innermost first."""

    frames: list[Frame]
    bytes_per_run: float
    count_per_run: float
    grew_in: int
    """In how many runs more was held after than before."""


class TracedRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result so far, so that a lost report does not matter."""

    pid: int
    tool: str
    """`tracemalloc` or `memray`."""
    warm_up_seconds: list[float]
    seconds: list[float]
    """How long each run took, without those of the warm-up."""
    judged: int = 0
    """How many of these runs the sites are computed from."""
    sites: list[Site] = []
    """The sites that grew in most runs, largest growth first."""
    over: bool = False


def encode_runs(report: TracedRuns) -> bytes:
    """Return a report as one line."""
    return msgspec.json.encode(report) + b"\n"


def decode_runs(line: bytes) -> TracedRuns:
    """Return the report in a line; raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(line, type=TracedRuns)


Place = TypeVar("Place", bound=Hashable)

MAX_SITES = 30
# Smaller growth is a run's own bookkeeping, and fills no container.
MIN_BYTES_PER_RUN = 512


@dataclass(frozen=True, slots=True)
class Held:
    """The memory held that was allocated at one place."""

    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Grown:
    """By how much a place grew over all runs, and in how many of them."""

    bytes: int
    count: int
    runs: int


@dataclass
class Growth(Generic[Place]):
    """The growth of all places over the runs so far."""

    runs: int = 0
    _grown: dict[Place, Grown] = field(default_factory=dict)

    def add(self, changes: Iterable[tuple[Place, Held]]) -> None:
        """Add one run: by how much places changed; those that did not may be left out."""
        self.runs += 1
        for place, change in changes:
            before = self._grown.get(place, Grown(0, 0, 0))
            self._grown[place] = Grown(
                before.bytes + change.bytes, before.count + change.count, before.runs + (change.bytes > 0)
            )

    def worst(self) -> list[tuple[Place, Grown]]:
        """Return the places that grew in more than half of the runs, largest growth first."""
        grown = [
            (place, grown)
            for place, grown in self._grown.items()
            if 2 * grown.runs > self.runs and grown.bytes >= MIN_BYTES_PER_RUN * self.runs
        ]
        return sorted(grown, key=lambda item: -item[1].bytes)[:MAX_SITES]

    def sites(self, frames_of: Callable[[Place], list[Frame]]) -> list[Site]:
        """Return these places as sites."""
        return [
            Site(
                frames=frames_of(place),
                bytes_per_run=round(grown.bytes / self.runs),
                count_per_run=round(grown.count / self.runs, 1),
                grew_in=grown.runs,
            )
            for place, grown in self.worst()
        ]


def changes_between(before: Mapping[Place, Held], after: Mapping[Place, Held]) -> Iterator[tuple[Place, Held]]:
    """Yield by how much each place changed."""
    nothing = Held(0, 0)
    for place in before.keys() | after.keys():
        was, now = before.get(place, nothing), after.get(place, nothing)
        if was != now:
            yield place, Held(now.bytes - was.bytes, now.count - was.count)
