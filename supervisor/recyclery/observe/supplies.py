"""What runs out beside memory: processes, open files, and room and inodes of folders that tasks write to.

Read every READ_EVERY_SECONDS, as all of it takes a millisecond. Who has most is looked for once one is scarce.
"""

import math
import os
import resource
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from recyclery.observe.browser_files import SHM_FOLDER
from recyclery.observe.cgroup import locate, read_number
from recyclery.observe.held_files import BLOCK_BYTES
from recyclery.observe.processes import read_proc_file
from recyclery.observe.snapshot import Child, Supply

READ_EVERY_SECONDS = 10.0
PROCESSES = "processes and threads"


class PidsCgroup(NamedTuple):
    """The cgroup with the lowest limit of processes from ours to the root."""

    folder: Path
    limit: int


class Supplies:
    """Reads what may run out, and keeps it until it is read again."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = tuple(folders)
        self._pids = find_pids_cgroup()
        self._last: tuple[Supply, ...] = ()
        self._read_at = -math.inf

    def read(
        self, children: Iterable[Child], mains: Iterable[tuple[str, int]], at: float
    ) -> tuple[Supply, ...]:
        """Return everything that may run out; `mains` are the workers' main processes, each with its name."""
        if at - self._read_at >= READ_EVERY_SECONDS:
            self._read_at, children = at, tuple(children)
            found = [*read_pids(self._pids, children), *read_folders(self._folders, children)]
            files = list(read_open_files([*((name_child(each), each.owner.pid) for each in children), *mains]))
            self._last = (*found, *([max(files, key=lambda each: each.percent)] if files else ()))
        return self._last


def list_folders(runtime_dir: Path, state_dir: Path) -> tuple[str, ...]:
    """Return the folders that tasks, browsers and the supervisor write to."""
    return tempfile.gettempdir(), str(SHM_FOLDER), str(runtime_dir), str(state_dir)


def find_pids_cgroup(proc: Path = Path("/proc/self")) -> PidsCgroup | None:
    """Return the cgroup that limits our processes most; None where none does."""
    with suppress(OSError):
        located = locate((proc / "cgroup").read_text(), (proc / "mountinfo").read_text(), "pids")
        if located is not None:
            _, mount_point, relative = located
            folder = mount_point / relative
            # In a cgroup namespace the mount's root is our own cgroup.
            folder = folder if (folder / "pids.current").exists() else mount_point
            levels = [level for level in (folder, *folder.parents) if level.is_relative_to(mount_point)]
            found = [PidsCgroup(level, read_number(level / "pids.max")) for level in levels]
            return min((each for each in found if each.limit), key=lambda each: each.limit, default=None)
    return None


def read_pids(cgroup: PidsCgroup | None, children: Iterable[Child]) -> Iterator[Supply]:
    """Yield the processes and threads that the container has, where they are limited."""
    if cgroup is not None:
        supply = Supply(PROCESSES, read_number(cgroup.folder / "pids.current"), cgroup.limit)
        yield with_holder(supply, children, count_threads)


def read_folders(folders: Iterable[str], children: Iterable[Child]) -> Iterator[Supply]:
    """Yield the room and the inodes of each file system that one of the folders is on."""
    seen = set()
    for folder in folders:
        with suppress(OSError):
            device, room = os.stat(folder).st_dev, os.statvfs(folder)  # noqa: PTH116  # no Path is needed else
            if device in seen:
                continue
            seen.add(device)
            # As df: what is reserved for root is neither used nor free.
            used, free = (room.f_blocks - room.f_bfree) * room.f_frsize, room.f_bavail * room.f_frsize

            def held_bytes(child: Child, device: int = device) -> int:
                return count_open_bytes(child, device)

            if used + free:
                yield with_holder(Supply(folder, used, used + free, in_bytes=True), children, held_bytes)
            if room.f_files:
                yield Supply(f"inodes of {folder}", room.f_files - room.f_favail, room.f_files, is_vast=True)


def read_open_files(processes: Iterable[tuple[str, int]]) -> Iterator[Supply]:
    """Yield each process's open files and how many it may have."""
    for name, pid in processes:
        with suppress(OSError):
            limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
            yield Supply(f"open files of {name}", count_open_files(pid), limit)


def with_holder(supply: Supply, children: Iterable[Child], count: Callable[[Child], int]) -> Supply:
    """Return a supply with the child that has most of it, where it is scarce."""
    if not supply.is_scarce:
        return supply
    most, holder = max(((count(child), name_child(child)) for child in children), default=(0, ""))
    return supply._replace(holder=holder, held=most) if most else supply


def count_open_files(pid: int) -> int:
    """Return how many files a process has open; raises OSError."""
    folder = f"/proc/{pid}/fd"
    # Its size says so since Linux 6.2.
    return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208  # as above


def count_threads(child: Child) -> int:
    """Return how many threads a child and its descendants have."""
    total = 0
    for process in child.processes:
        fields = read_proc_file(f"/proc/{process.pid}/stat").rpartition(b")")[2].split()
        total += int(fields[17]) if fields else 0
    return total


def count_open_bytes(child: Child, device: int) -> int:
    """Return the size of a file system's files that a child and its descendants have open, deleted ones too."""
    sizes = {}
    for process in child.processes:
        folder = f"/proc/{process.pid}/fd"
        with suppress(OSError):
            for name in os.listdir(folder):  # noqa: PTH208  # as above
                with suppress(OSError):
                    file = os.stat(f"{folder}/{name}")  # noqa: PTH116  # as above
                    if file.st_dev == device and S_ISREG(file.st_mode):
                        sizes[file.st_ino] = file.st_blocks * BLOCK_BYTES
    return sum(sizes.values())


def name_child(child: Child) -> str:
    return f"{child.owner.pool}/{child.owner.pid}"
