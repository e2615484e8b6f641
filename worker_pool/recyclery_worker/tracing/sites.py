"""The sites whose memory grew over a task's runs, and the messages that a traced child sends about them.

After each run it sends one line of JSON to the socket of the command that waits for it.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

MAX_SITES = 30
MIN_BYTES_PER_RUN = 512  # Smaller growth is a run's own bookkeeping, and fills no container
# Files of tracing itself, and of imports, which happen only once.
NOT_OF_TASKS = (str(Path(__file__).parent), "<frozen importlib._bootstrap", "<frozen zipimport")

Place = TypeVar("Place", bound=Hashable)


class StackFrame(msgspec.Struct, frozen=True):
    """A place in the code. `function` is empty where the tracer does not report it."""

    file: str
    line: int
    function: str = ""


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """Where memory was allocated that is still held: the frames, innermost first."""

    frames: list[StackFrame]
    bytes_per_run: float
    count_per_run: float
    grew_in: int  # In how many runs more was held after than before


class TracedRuns(msgspec.Struct, frozen=True, kw_only=True):
    """The whole result so far, so that a lost report does not matter."""

    pid: int
    tool: str  # `tracemalloc` or `memray`
    warm_up_seconds: list[float]
    seconds: list[float]  # How long each run took, without those of the warm-up
    judged: int = 0  # How many of these runs the sites are computed from
    sites: list[Site] = []  # The sites that grew in most runs, largest growth first
    over: bool = False


def encode_runs(report: TracedRuns) -> bytes:
    return msgspec.json.encode(report) + b"\n"


@dataclass(frozen=True, slots=True)
class Held:
    """The memory held that was allocated at one place."""

    bytes: int
    count: int


class Growth(Generic[Place]):
    """The growth of all places over the runs so far."""

    def __init__(self) -> None:
        self.runs = 0
        self._grown: dict[Place, tuple[int, int, int]] = {}  # Bytes, count, and the number of runs with growth

    def add(self, changes: Iterable[tuple[Place, Held]]) -> None:
        """Add one run: by how much places changed; those that did not may be left out."""
        self.runs += 1
        for place, change in changes:
            size, count, runs = self._grown.get(place, (0, 0, 0))
            self._grown[place] = size + change.bytes, count + change.count, runs + (change.bytes > 0)

    def sites(self, frames_of: Callable[[Place], list[StackFrame]]) -> list[Site]:
        """Return the places that grew in more than half of the runs, largest growth first."""
        least = MIN_BYTES_PER_RUN * self.runs
        grown = [item for item in self._grown.items() if 2 * item[1][2] > self.runs and item[1][0] >= least]
        return [
            Site(
                frames=frames_of(place),
                bytes_per_run=round(size / self.runs),
                count_per_run=round(count / self.runs, 1),
                grew_in=runs,
            )
            for place, (size, count, runs) in sorted(grown, key=lambda item: -item[1][0])[:MAX_SITES]
        ]


def changes_between(before: Mapping[Place, Held], after: Mapping[Place, Held]) -> Iterator[tuple[Place, Held]]:
    """Yield by how much each place changed."""
    nothing = Held(0, 0)
    for place in before.keys() | after.keys():
        was, now = before.get(place, nothing), after.get(place, nothing)
        if was != now:
            yield place, Held(now.bytes - was.bytes, now.count - was.count)


def is_of_task(files: Iterable[str]) -> bool:
    """Return whether an allocation, by the files of its frames, is a task's, not of tracing or of an import."""
    return not any(file.startswith(NOT_OF_TASKS) for file in files)
