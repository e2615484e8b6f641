"""How much of the CPU that the container may have is used.

Files: Documentation/admin-guide/cgroup-v2.rst (cpu.max, cpu.stat), scheduler/sched-bwc.rst (v1).
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil


class CpuMeter:
    """Tells the share of the allowed CPU used between two readings, 0 to 1."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._root = root
        self._cores = allowed_cores(root)
        self._before = self._read()

    def read(self) -> float:
        """Return the share since the last reading; by the cgroup where it tells, else by the machine."""
        before, self._before = self._before, self._read()
        passed = self._before[0] - before[0]
        if passed <= 0:
            return 0.0
        return min(1.0, max(0.0, (self._before[1] - before[1]) / passed / self._cores))

    def _read(self) -> tuple[float, float]:
        return time.monotonic(), used_seconds(self._root)


def allowed_cores(root: Path) -> float:
    """Return how many cores may be used: the quota's share, and never more than there are."""
    cores = float(len(os.sched_getaffinity(0)))
    quota, period = read_quota(root)
    return min(cores, quota / period) if quota > 0 and period > 0 else cores


def read_quota(root: Path) -> tuple[float, float]:
    """Return (quota, period) in microseconds; zeros for none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return (0.0, 0.0) if quota == "max" else (float(quota), float(period))
    except (OSError, ValueError):
        pass
    try:
        folder = root / "cpu"
        quota_us = float((folder / "cpu.cfs_quota_us").read_text())
        return max(0.0, quota_us), float((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return 0.0, 0.0


def used_seconds(root: Path) -> float:
    """Return the CPU time used so far."""
    try:
        for line in (root / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) / 1e6
    except (OSError, ValueError):
        pass
    try:
        return int((root / "cpuacct" / "cpuacct.usage").read_text()) / 1e9
    except (OSError, ValueError):
        times = psutil.cpu_times()
        return times.user + times.system
