"""browsers_meters: not a benchmark; a browser's processes, memory and files; how figures spread."""

from __future__ import annotations

import math
import os
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recyclery.observe.processes import read_proc_file, read_pss
from recyclery_worker.browser.session import read_anon_bytes

MIB = 1 << 20
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the mount point itself


@dataclass(frozen=True)
class Spread:
    """The median of some figures, and their least and largest."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"

    def document(self) -> list[float]:
        """Return it as the closing line has it: median, least, largest."""
        return [round(value, 3) for value in (self.median, self.least, self.most)]


def spread(values: Sequence[float]) -> Spread:
    """Return how the values spread; there must be one."""
    return Spread(statistics.median(values), min(values), max(values))


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the percentile by nearest rank: the least value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def session_pids(driver: Any) -> set[int]:
    """Find the processes of a browser, whoever started it: its chromedriver, and by the profile folder."""
    mark = os.fsencode(driver.capabilities["chrome"]["userDataDir"])
    return {pid for pid in all_pids() if mark in read_proc_file(f"/proc/{pid}/cmdline")} | {
        driver.service.process.pid
    }


def all_pids() -> list[int]:
    """Return every process that /proc shows."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208 - far cheaper


def held_bytes(pids: Iterable[int]) -> int:
    """Return RssAnon + RssShmem of the processes, near what the cgroup is charged."""
    return sum(map(read_anon_bytes, pids))


def pss_bytes(pids: Iterable[int]) -> int:
    """Return the PSS of the processes."""
    return sum(map(read_pss, pids))


def bench_pids(session: int, token: str) -> set[int]:
    """Find what a pool child has started: by its session's id, and by a token in the environment.

    Defunct processes too, the child itself not.
    """
    mark = f"BENCH_SESSION={token}".encode()
    found = set()
    for pid in all_pids():
        with suppress(OSError):
            if pid != session and (
                os.getsid(pid) == session or mark in read_proc_file(f"/proc/{pid}/environ").split(b"\0")
            ):
                found.add(pid)
    return found


def list_entries(folders: Iterable[Path]) -> set[Path]:
    """List what is directly in some folders."""
    entries: set[Path] = set()
    for folder in folders:
        with suppress(OSError):
            entries |= set(folder.iterdir())
    return entries


def count_kinds(entries: Iterable[Path]) -> dict[str, int]:
    """Count leftovers by their kind: the name without its random end, as tempfile and Chrome make them."""
    return dict(Counter(re.sub(r"[.-]\w{6,8}$", "", entry.name) for entry in sorted(entries)))
