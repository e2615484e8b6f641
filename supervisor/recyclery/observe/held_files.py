"""Memory that no process's RssAnon or RssShmem shows: files without a name that a child's processes hold open.

A memfd, or a file of a tmpfs that was deleted while it was open, takes memory until the last process closes it.
It counts with the child that alone has it open: that child's end frees it. What several children hold, or their
worker too, no recycle of one frees.

Listing open files takes a system call each. So it is done only while LEAST_BYTES belong to no process: when
that has changed by as much, and else every LOOK_AGAIN_SECONDS.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass

from recyclery.observe.processes import read_proc_file
from recyclery.observe.snapshot import Owner, Process

LEAST_BYTES = 16 << 20
LOOK_AGAIN_SECONDS = 5.0
# Of one process: more are not looked at.
MOST_FILES = 2000
BLOCK_BYTES = 512
MEMFD = "/memfd:"
DELETED = " (deleted)"


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file without a name, by its device and inode, and the memory that it takes."""

    device: int
    inode: int
    held_bytes: int


class HeldFiles:
    """Remembers what was found at the last look."""

    def __init__(self) -> None:
        self._looked: float | None = None
        self._unseen_bytes = 0
        self._held: Mapping[Owner, int] = {}

    def update(
        self, children: Mapping[Owner, tuple[Process, ...]], mains: Iterable[int], unseen_bytes: int, at: float
    ) -> Mapping[Owner, int]:
        """Return the bytes that each child holds in such files; `unseen_bytes` belong to no process.

        `mains` are the main processes that run no tasks themselves.
        """
        if unseen_bytes < LEAST_BYTES:
            self._held = {}
        elif (
            self._looked is None
            or at - self._looked >= LOOK_AGAIN_SECONDS
            or abs(unseen_bytes - self._unseen_bytes) >= LEAST_BYTES
        ):
            self._looked, self._unseen_bytes = at, unseen_bytes
            memory = tmpfs_devices()
            files = {
                # Browsers have mapped what they hold: it is in their RssShmem.
                owner: {
                    file
                    for process in members
                    if not process.is_browser
                    for file in list_nameless(process.pid, memory)
                }
                for owner, members in children.items()
            }
            of_mains = {file for pid in mains for file in list_nameless(pid, memory)}
            mapped = {
                owner: sum(process.shmem_bytes for process in members if not process.is_browser)
                for owner, members in children.items()
            }
            self._held = share_files(files, of_mains, mapped)
        return self._held


def share_files(
    files: Mapping[Owner, set[HeldFile]], of_mains: set[HeldFile], mapped: Mapping[Owner, int]
) -> dict[Owner, int]:
    """Return what each child alone holds, less what it has mapped of it (`mapped`): that is in its RssShmem."""
    holders: dict[HeldFile, set[Owner]] = defaultdict(set)
    for owner, held in files.items():
        for file in held:
            holders[file].add(owner)
    alone: dict[Owner, int] = defaultdict(int)
    for file, owners in holders.items():
        if len(owners) == 1 and file not in of_mains:
            alone[next(iter(owners))] += file.held_bytes
    return {owner: held - mapped[owner] for owner, held in alone.items() if held > mapped[owner]}


def list_nameless(pid: int, memory: Set[int]) -> Iterator[HeldFile]:
    """Yield a process's open files that take memory and have no name; none where they cannot be read.

    `memory` are the devices whose files take memory; memfds have one that is not mounted.
    """
    folder = f"/proc/{pid}/fd"
    try:
        descriptors = os.listdir(folder)[:MOST_FILES]  # noqa: PTH208  # as in `read_processes`
    except OSError:
        return
    for descriptor in descriptors:
        path = f"{folder}/{descriptor}"
        try:
            target = os.readlink(path)  # noqa: PTH115
            if not target.endswith(DELETED):
                continue
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            continue
        if target.startswith(MEMFD) or status.st_dev in memory:
            yield HeldFile(status.st_dev, status.st_ino, status.st_blocks * BLOCK_BYTES)


def tmpfs_devices() -> set[int]:
    """Return the devices of all mounted tmpfs, as `stat` has them (proc_pid_mountinfo(5))."""
    devices = set()
    for line in read_proc_file("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(b" - ")
        if after.startswith(b"tmpfs "):
            major, minor = map(int, before.split(b" ", 3)[2].split(b":"))
            devices.add(os.makedev(major, minor))
    return devices
