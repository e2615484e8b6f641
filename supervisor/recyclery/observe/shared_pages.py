"""The memory of processes that forked from one another, with the pages that they share counted once.

After a fork, parent and child both have all pages in their RssAnon that neither has written to since. So
processes of one image (fork without exec) hold together what their PSS adds up to, or what the largest of them
holds, where that is more: it may share pages with processes outside of its session, as a pool child does with
its worker's main process. Browsers are left as they are: they share little, and their sandbox may refuse a
reading.

Reading PSS takes the kernel 3 ms for 100 MiB. It is read of forked processes only, the largest first, and takes
no more than a share of a core in the long run. What was not read yet counts as shared by all of its image.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from recyclery.observe.processes import read_anon_pss
from recyclery.observe.snapshot import Process, ProcessKey

# Of a core, for figures that decide, and for those that are only told.
DECIDING_SHARE, TELLING_SHARE = 0.01, 0.001
# What may be saved up of it, and is there at first.
MOST_READ_SECONDS = 0.03
PSS_AGAIN_SECONDS = 30.0
# A process whose size has changed by this is read again at once.
CHANGED_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Reading:
    """The PSS of a process, when it was read, and what the process and the number of its image's were then."""

    at: float
    pss_bytes: int
    anon_bytes: int
    members: int

    def still_holds(self, process: Process, members: int, at: float) -> bool:
        """Return whether it need not be read again."""
        is_recent = at - self.at < PSS_AGAIN_SECONDS
        return (
            is_recent and members == self.members and abs(process.anon_bytes - self.anon_bytes) < CHANGED_BYTES
        )


class SharedPages:
    """Remembers readings from tick to tick."""

    def __init__(self, share: float, read: Callable[[int], int | None] = read_anon_pss) -> None:
        self._share = share
        self._read = read
        self._readings: dict[ProcessKey, Reading] = {}
        self._used: dict[ProcessKey, Reading] = {}
        self._seconds_left = MOST_READ_SECONDS
        self._refilled: float | None = None

    def count_once(self, processes: Sequence[Process], at: float) -> tuple[Process, ...]:
        """Return the processes of one session, with `anon_bytes` that add up to what they hold together."""
        images: dict[int, list[Process]] = defaultdict(list)
        for process in processes:
            if process.image and process.anon_bytes and not process.is_browser:
                images[process.image].append(process)
        families = [family for family in images.values() if len(family) > 1]
        counted = {
            each.pid: each for family in families for each in share_out(family, self._estimate(family, at))
        }
        return tuple(counted.get(process.pid, process) for process in processes)

    def turn(self) -> None:
        """Forget the processes that were not counted since the last call."""
        self._readings, self._used = self._used, {}

    def _estimate(self, family: Sequence[Process], at: float) -> list[int]:
        """Return what each holds of all that the family does."""
        known = {}
        for process in sorted(family, key=lambda one: one.anon_bytes, reverse=True):
            reading = self._readings.get(process.key)
            if reading is None or not reading.still_holds(process, len(family), at):
                reading = self._measure(process, len(family), at) or reading
            if reading is not None:
                known[process.key] = self._used[process.key] = reading
        return [estimate_bytes(process, known.get(process.key), len(family)) for process in family]

    def _measure(self, process: Process, members: int, at: float) -> Reading | None:
        passed = at - self._refilled if self._refilled is not None else 0.0
        self._refilled = at
        self._seconds_left = min(MOST_READ_SECONDS, self._seconds_left + passed * self._share)
        if self._seconds_left <= 0:
            return None
        began = time.perf_counter()
        pss_bytes = self._read(process.pid)
        self._seconds_left -= time.perf_counter() - began
        return Reading(at, pss_bytes, process.anon_bytes, members) if pss_bytes is not None else None


def estimate_bytes(process: Process, reading: Reading | None, members: int) -> int:
    """Return a process's part of the memory of its image, by the latest reading."""
    evenly = process.anon_bytes // members
    if reading is None or members > reading.members:
        # More processes share its pages by now than when it was read.
        return min(evenly, reading.pss_bytes) if reading is not None else evenly
    # What it has allocated since is its own.
    return min(process.anon_bytes, max(0, reading.pss_bytes + process.anon_bytes - reading.anon_bytes))


def share_out(family: Sequence[Process], estimates: Iterable[int]) -> list[Process]:
    """Return a family with `anon_bytes` that add up to what it holds; the oldest, its root, keeps its own."""
    parts = dict(zip((process.pid for process in family), estimates, strict=True))
    total = max(sum(parts.values()), *(process.anon_bytes for process in family))
    root = min(family, key=lambda process: (process.start_ticks, process.pid))
    left = total - root.anon_bytes
    of_others = sum(parts.values()) - parts[root.pid]
    counted = [root]
    for process in family:
        if process is not root:
            part = min(process.anon_bytes, left * parts[process.pid] // of_others) if of_others else 0
            counted.append(replace(process, anon_bytes=part, shmem_bytes=min(part, process.shmem_bytes)))
    return counted
