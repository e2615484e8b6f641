"""The container's memory and CPU by its cgroup: v2, v1 or hybrid, nested or namespaced, or none.

`floor` is unreclaimable memory: what no page reclaim can free. `working_set` is usage without inactive file
pages, what cAdvisor and the kubelet show. Files: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst.
"""

import math
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import psutil

from recyclery.observe.snapshot import ContainerMemory

# v1 has a huge number, a multiple of the page size, for "no limit".
NO_LIMIT_BYTES = 1 << 60
USAGE_FILES = {1: "memory.usage_in_bytes", 2: "memory.current"}
LIMIT_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}
V2_FLOOR_KEYS = ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "pagetables", "percpu", "sock")


@dataclass(frozen=True, slots=True)
class LimitedCgroup:
    """The cgroup with the lowest limit from ours to the root."""

    version: int
    folder: Path
    limit_bytes: int | None


def find_memory_cgroup(proc: Path = Path("/proc/self")) -> LimitedCgroup | None:
    """Return the cgroup with the lowest limit from ours to the mount's root; ours where none is limited.

    None without a readable memory controller.
    """
    try:
        located = locate((proc / "cgroup").read_text(), (proc / "mountinfo").read_text())
    except OSError:
        return None
    if located is None:
        return None
    version, mount_point, relative = located
    folder = mount_point / relative
    # In a cgroup namespace the mount's root is our own cgroup.
    if not (folder / USAGE_FILES[version]).exists():
        folder = mount_point
    levels = [level for level in (folder, *folder.parents) if level.is_relative_to(mount_point)]
    found = [
        LimitedCgroup(version, level, read_limit(level / LIMIT_FILES[version]))
        for level in levels
        if (level / USAGE_FILES[version]).exists()
    ]
    return min(found, key=lambda one: math.inf if one.limit_bytes is None else one.limit_bytes, default=None)


def locate(cgroup: str, mountinfo: str, controller: str = "memory") -> tuple[int, Path, PurePosixPath] | None:
    """Return (version, mount point, our path below it) from /proc/self/cgroup and /proc/self/mountinfo.

    A controller on a v1 line means v1, even if a v2 hierarchy is mounted too (hybrid).
    """
    lines = [line.split(":", 2) for line in cgroup.splitlines()]
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    version, path = (1, paths[controller]) if controller in paths else (2, paths.get("", ""))
    if not path:
        return None
    found = None
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = (unescape(field) for field in before.split(" ")[3:5])
        kind, _, options = after.split(" ", 2)
        is_right = version == 2 or controller in options.split(",")
        if kind == ("cgroup2" if version == 2 else "cgroup") and is_right:
            # A later mount hides an earlier one at the same place.
            found = version, Path(mount_point), path_below(root, path)
    return found


def path_below(root: str, path: str) -> PurePosixPath:
    """Return a cgroup's path relative to a mount of the subtree `root`."""
    below = path if root == "/" else path.removeprefix(root)
    hidden = root not in {"/", path} and not path.startswith(f"{root}/")
    return PurePosixPath("" if hidden else below.lstrip("/"))


def unescape(field: str) -> str:
    """Return a mountinfo field with its octal escapes (\\040 for a space) undone."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def read_limit(path: Path) -> int | None:
    """Return the limit in bytes, None for none."""
    text = read_or_empty(path).strip()
    return int(text) if text not in {"", "max"} and int(text) < NO_LIMIT_BYTES else None


def read_container(cgroup: LimitedCgroup, stated_limit_bytes: int | None) -> ContainerMemory:
    """Read a cgroup's memory; a configured limit counts if it is lower. Raises OSError."""
    folder = cgroup.folder
    usage = int((folder / USAGE_FILES[cgroup.version]).read_text())
    stat = read_pairs(folder / "memory.stat")
    if cgroup.version == 2:
        floor = sum(stat.get(key, 0) for key in V2_FLOOR_KEYS)
        inactive = stat.get("inactive_file", 0)
        oom_kills = read_pairs(folder / "memory.events").get("oom_kill", 0)
    else:
        # v1 has no separate count of reclaimable slab: all kernel memory is taken as unreclaimable.
        kernel = read_number(folder / "memory.kmem.usage_in_bytes")
        floor = stat.get("total_rss", 0) + stat.get("total_shmem", 0) + kernel
        inactive = stat.get("total_inactive_file", 0)
        oom_kills = read_pairs(folder / "memory.oom_control").get("oom_kill", 0)
    limits = [limit for limit in (cgroup.limit_bytes, stated_limit_bytes) if limit is not None]
    return ContainerMemory(
        limit_bytes=min(limits),
        usage_bytes=usage,
        working_set_bytes=max(0, usage - inactive),
        floor_bytes=min(floor, usage),
        oom_kills=oom_kills,
        source=f"cgroup v{cgroup.version} {folder}",
        pressure_percent=read_pressure(folder / "memory.pressure") if cgroup.version == 2 else None,
    )


def read_pressure(path: Path) -> float | None:
    """Return `some avg10` of a pressure file (Documentation/accounting/psi.rst); None where there is none."""
    found = re.match(r"some avg10=([\d.]+)", read_or_empty(path))
    return float(found[1]) if found else None


def read_machine() -> ContainerMemory:
    """Return the whole machine's memory, for a container without a limit."""
    memory = psutil.virtual_memory()
    used = memory.total - memory.available
    return ContainerMemory(memory.total, used, used, used, oom_kills=0, source="the machine's memory")


def stated_budget(limit_bytes: int, used_bytes: int) -> ContainerMemory:
    """Return a configured limit and the memory of our own processes, for where the kernel sets no limit."""
    return ContainerMemory(
        limit_bytes, used_bytes, used_bytes, used_bytes, oom_kills=0, source="a stated budget"
    )


def read_pairs(path: Path) -> dict[str, int]:
    """Return a file of `key number` lines; empty where it cannot be read."""
    lines = read_or_empty(path).splitlines()
    return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}


def read_number(path: Path) -> int:
    """Return a file's number; 0 where it has none, or cannot be read."""
    text = read_or_empty(path).strip()
    return int(text) if text.isdigit() else 0


def read_or_empty(path: Path) -> str:
    """Return a file's text; empty where it cannot be read."""
    try:
        return path.read_text()
    except OSError:
        return ""


class CpuMeter:
    """Measures the share of the available CPU used between two readings, 0 to 1."""

    def __init__(self, root: Path = Path("/sys/fs/cgroup")) -> None:
        self._root = root
        self._cores = allowed_cores(root)
        self._before = self._read()

    def read(self) -> float:
        """Return the share since the last reading, of the cgroup or else of the machine."""
        before, self._before = self._before, self._read()
        passed = self._before[0] - before[0]
        if passed <= 0:
            return 0.0
        return min(1.0, max(0.0, (self._before[1] - before[1]) / passed / self._cores))

    def _read(self) -> tuple[float, float]:
        return time.monotonic(), used_seconds(self._root)


def allowed_cores(root: Path) -> float:
    """Return how many cores may be used: the quota, at most the number of cores."""
    cores = float(len(os.sched_getaffinity(0)))
    try:
        quota, period = map(int, (root / "cpu.max").read_text().replace("max", "0").split())
    except (OSError, ValueError):
        quota, period = (read_number(root / "cpu" / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
    return min(cores, quota / period) if quota > 0 and period > 0 else cores


def used_seconds(root: Path) -> float:
    """Return the CPU time used so far; the machine's where no cgroup counts it."""
    if found := re.search(r"^usage_usec (\d+)$", read_or_empty(root / "cpu.stat"), re.MULTILINE):
        return int(found[1]) / 1e6
    if found := re.match(r"(\d+)$", read_or_empty(root / "cpuacct" / "cpuacct.usage")):
        return int(found[1]) / 1e9
    times = psutil.cpu_times()
    return times.user + times.system
