"""Which sites grew: those that held more after most of the runs.

What a child that traces says on the socket of whoever waits for it is a line of JSON after each run.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec


class Frame(msgspec.Struct, frozen=True):
    """A place in the code. `function` is empty where the tracer does not tell it."""

    file: str
    line: int
    function: str = ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where memory was allocated that is still held: the frames from the allocation outwards."""

    frames: list[Frame]
    bytes_per_run: float
    count_per_run: float
    grew_in: int
    """In how many runs more was held after it than before."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """All that was seen so far: the next makes good a lost one."""

    pid: int
    tool: str
    """`tracemalloc` or `memray`."""
    warm_up_seconds: list[float]
    seconds: list[float]
    """How long each run took that is judged."""
    judged: int = 0
    """Of these runs, how many the sites are told from."""
    sites: list[Site] = []
    """Largest growth first, of those that grew in most runs."""
    over: bool = False


def encode_seen(seen: Seen) -> bytes:
    """Return what was seen as one line."""
    return msgspec.json.encode(seen) + b"\n"


def decode_seen(line: bytes) -> Seen:
    """Return what was seen; raises msgspec.DecodeError for anything else."""
    return msgspec.json.decode(line, type=Seen)


Place = TypeVar("Place", bound=Hashable)

MOST_SITES = 30
# Less than this is what a run's own bookkeeping comes to; no container dies of it.
LEAST_BYTES_PER_RUN = 512


@dataclass(frozen=True, slots=True)
class Held:
    """What is held of the allocations of one place."""

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
    """The runs so far, added up by place."""

    runs: int = 0
    _grown: dict[Place, Grown] = field(default_factory=dict)

    def add(self, changes: Iterable[tuple[Place, Held]]) -> None:
        """Take in one run: by how much places changed, those that did not may be left out."""
        self.runs += 1
        for place, change in changes:
            before = self._grown.get(place, Grown(0, 0, 0))
            self._grown[place] = Grown(
                before.bytes + change.bytes, before.count + change.count, before.runs + (change.bytes > 0)
            )

    def worst(self) -> list[tuple[Place, Grown]]:
        """Return the places that grew in more than half of the runs, those that grew most first."""
        grown = [
            (place, grown)
            for place, grown in self._grown.items()
            if 2 * grown.runs > self.runs and grown.bytes >= LEAST_BYTES_PER_RUN * self.runs
        ]
        return sorted(grown, key=lambda item: -item[1].bytes)[:MOST_SITES]


def changes_between(before: Mapping[Place, Held], after: Mapping[Place, Held]) -> Iterator[tuple[Place, Held]]:
    """Yield by how much each place changed."""
    nothing = Held(0, 0)
    for place in before.keys() | after.keys():
        was, now = before.get(place, nothing), after.get(place, nothing)
        if was != now:
            yield place, Held(now.bytes - was.bytes, now.count - was.count)
