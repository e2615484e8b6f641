"""The memory of a cage: the kernel's figures where it has a cgroup, a sum over its processes where not."""

import contextlib
from typing import Protocol

from recyclery.observe.processes import with_memory
from recyclery.sandbox.cage import Cage
from recyclery.sandbox.cgroups import CannotCageError, MemoryCgroup, find_own_home
from recyclery.sandbox.guard import descendants


class Meter(Protocol):
    """What a storm is measured by."""

    kind: str

    def usage_bytes(self) -> int:
        """Return the memory in use."""

    def floor_bytes(self) -> int:
        """Return the part of it that cannot be reclaimed."""

    def peak_bytes(self) -> int:
        """Return the highest usage so far."""

    def oom_kills(self) -> int:
        """Return how many processes were killed for want of memory."""

    def processes_left(self) -> int:
        """Return how many processes there are."""


class CgroupMeter:
    """The figures of a cgroup."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self.kind = cgroup.kind
        self._cgroup = cgroup
        self._highest_seen_bytes = 0

    def usage_bytes(self) -> int:
        """Return what is charged, page cache included."""
        usage_bytes = self._cgroup.usage_bytes()
        self._highest_seen_bytes = max(self._highest_seen_bytes, usage_bytes)
        return usage_bytes

    def floor_bytes(self) -> int:
        """Return what no reclaim can free."""
        return self._cgroup.floor_bytes()

    def peak_bytes(self) -> int:
        """Return the kernel's peak, or the highest we saw where it keeps none."""
        return self._cgroup.peak_bytes() or self._highest_seen_bytes

    def oom_kills(self) -> int:
        """Return the kernel's count."""
        return self._cgroup.oom_kills()

    def processes_left(self) -> int:
        """Return how many processes are in the cgroup."""
        return len(self._cgroup.processes())


class BudgetMeter:
    """A sum over the processes below a guard; the OOM kills are those of the cgroup around the demo."""

    kind = "budget"

    def __init__(self, cage: Cage) -> None:
        self._cage = cage
        self._highest_seen_bytes = 0
        self._surrounding: MemoryCgroup | None = None
        with contextlib.suppress(CannotCageError):
            home = find_own_home()
            self._surrounding = MemoryCgroup(home.path, home.version)
        self._kills_before = self._count_kills()

    def usage_bytes(self) -> int:
        """Return the anonymous and shared memory of all processes."""
        usage_bytes = sum(with_memory(process).anon_bytes for process in descendants(self._cage.guard_pid))
        self._highest_seen_bytes = max(self._highest_seen_bytes, usage_bytes)
        return usage_bytes

    def floor_bytes(self) -> int:
        """Return the usage: none of what is summed can be reclaimed."""
        return self.usage_bytes()

    def peak_bytes(self) -> int:
        """Return the highest sum seen."""
        return self._highest_seen_bytes

    def oom_kills(self) -> int:
        """Return the kills around us since the start, 0 where they cannot be read."""
        return self._count_kills() - self._kills_before

    def processes_left(self) -> int:
        """Return how many processes are below the guard, which adopts every orphan."""
        return sum(not process.is_defunct for process in descendants(self._cage.guard_pid))

    def _count_kills(self) -> int:
        if self._surrounding is None:
            return 0
        try:
            return self._surrounding.oom_kills()
        except OSError:
            return 0


def make_meter(cage: Cage) -> Meter:
    """Return the meter that fits the cage."""
    return CgroupMeter(cage.cgroup) if cage.cgroup is not None else BudgetMeter(cage)
