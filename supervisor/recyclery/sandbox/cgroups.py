"""The memory cgroup of this process, and one below it with a limit: made, read and removed, on v1 and v2."""

import contextlib
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from recyclery.observe.cgroup import locate


class CannotCageError(Exception):
    """The kernel, or the container around us, allows no cage; the message says why in a few words."""


@dataclass(frozen=True)
class MemoryHome:
    """The directory of the memory cgroup this process is in, and the mount it was found under."""

    version: int
    path: Path
    mount_point: Path


def find_memory_home(cgroup_text: str, mountinfo_text: str) -> MemoryHome | None:
    """Return where /proc/self/cgroup and mountinfo put this process, None where nothing is mounted."""
    located = locate(cgroup_text, mountinfo_text)
    if located is None:
        return None
    version, mount_point, below = located
    return MemoryHome(version, mount_point / below, mount_point)


def find_own_home() -> MemoryHome:
    """Return the memory cgroup of this process, or say why there is none to build on."""
    try:
        home = find_memory_home(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError as error:
        raise CannotCageError(f"/proc cannot be read: {error.strerror}") from error
    if home is None:
        raise CannotCageError("no memory cgroup is mounted here")
    if not home.path.is_dir():
        return MemoryHome(home.version, home.mount_point, home.mount_point)
    return home


# Where cgroup v2 wants a cgroup's own processes out of the way before its children may have limits.
HOST_LEAF = "recyclery-demo-host"
NAME_PREFIX = "recyclery-demo-"
REMOVE_SECONDS = 5.0


@dataclass(frozen=True)
class _Files:
    limit: str
    swap: str
    usage: str
    peak: str
    events: str


_FILES = {
    1: _Files(
        limit="memory.limit_in_bytes",
        swap="memory.memsw.limit_in_bytes",
        usage="memory.usage_in_bytes",
        peak="memory.max_usage_in_bytes",
        events="memory.oom_control",
    ),
    2: _Files(
        limit="memory.max",
        swap="memory.swap.max",
        usage="memory.current",
        peak="memory.peak",
        events="memory.events",
    ),
}
_FLOOR_KEYS_V2 = ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "sock")


class MemoryCgroup:
    """One memory cgroup that we made, its figures and its end."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.version = version
        self._files = _FILES[version]

    @classmethod
    def create(cls, home: MemoryHome, name: str, limit_bytes: int) -> "MemoryCgroup":
        """Make a cgroup of this name below `home` with a limit and without swap."""
        try:
            parent = home.path if home.version == 1 else _open_parent_v2(home)
            cgroup = cls(parent / f"{NAME_PREFIX}{name}", home.version)
            cgroup.path.mkdir()
        except OSError as error:
            raise CannotCageError(f"no cgroup can be made in {home.path}: {error.strerror}") from error
        try:
            cgroup._limit(limit_bytes)
        except OSError as error:
            cgroup.remove()
            raise CannotCageError(f"{cgroup.path} takes no limit: {error.strerror}") from error
        return cgroup

    def _limit(self, limit_bytes: int) -> None:
        (self.path / self._files.limit).write_text(str(limit_bytes))
        # Absent where the kernel was started without swap accounting; then there is nothing to forbid.
        with contextlib.suppress(FileNotFoundError):
            (self.path / self._files.swap).write_text("0" if self.version == 2 else str(limit_bytes))

    @property
    def kind(self) -> str:
        """The name a report gives to this kind of limit."""
        return f"cgroup v{self.version}"

    def usage_bytes(self) -> int:
        """Return what is charged to the cgroup now, page cache included."""
        return int((self.path / self._files.usage).read_text())

    def floor_bytes(self) -> int:
        """Return the part of the usage that no reclaim can free."""
        stat = self._read_pairs("memory.stat")
        if self.version == 2:
            return sum(stat.get(key, 0) for key in _FLOOR_KEYS_V2)
        # v1 does not split its kernel memory: take what is not on the file lists.
        files = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
        return max(0, self.usage_bytes() - files)

    def peak_bytes(self) -> int | None:
        """Return the highest usage ever, or None on a kernel that does not keep it (v2 before 5.19)."""
        try:
            return int((self.path / self._files.peak).read_text())
        except FileNotFoundError:
            return None

    def oom_kills(self) -> int:
        """Return how many processes the kernel killed here for want of memory."""
        return self._read_pairs(self._files.events).get("oom_kill", 0)

    def join(self) -> None:
        """Move the calling process into the cgroup."""
        (self.path / "cgroup.procs").write_text("0")

    def processes(self) -> list[int]:
        """Return the processes in the cgroup and in those below it."""
        pids: list[int] = []
        for procs in [self.path / "cgroup.procs", *self.path.glob("**/cgroup.procs")]:
            with contextlib.suppress(OSError):
                pids += [int(line) for line in procs.read_text().split()]
        return sorted(set(pids))

    def remove(self) -> None:
        """Remove the cgroup; the kernel may need some moments to let the last process go."""
        deadline = time.monotonic() + REMOVE_SECONDS
        while self.path.is_dir():
            try:
                for directory in sorted(self.path.glob("**/"), reverse=True):
                    directory.rmdir()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        if self.version == 2:
            _leave_leaf(self.path.parent)

    def _read_pairs(self, name: str) -> dict[str, int]:
        lines = (self.path / name).read_text().splitlines()
        return {key: int(value) for key, _, value in (line.partition(" ") for line in lines)}


def _open_parent_v2(home: MemoryHome) -> Path:
    """Return the cgroup below which a limited child can be made: our own, else the one around it."""
    own = home.path
    if "memory" not in (own / "cgroup.controllers").read_text().split():
        raise CannotCageError("this container's cgroup has no memory controller")
    if _delegates_memory(own):
        return own
    try:
        (own / "cgroup.subtree_control").write_text("+memory")
        return own
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.EOPNOTSUPP}:
            raise
    # "No internal processes": a cgroup with members of its own may not limit its children.
    if own != home.mount_point and (own / "memory.max").read_text().strip() == "max":
        return own.parent
    if own == home.mount_point and _enter_leaf(own):
        return own
    raise CannotCageError("this cgroup v2 has processes in it, so it can have no limited children")


def _delegates_memory(directory: Path) -> bool:
    return "memory" in (directory / "cgroup.subtree_control").read_text().split()


def _enter_leaf(own: Path) -> bool:
    """Move a container's processes into a leaf, as Docker-in-Docker does, so that siblings can be limited."""
    leaf = own / HOST_LEAF
    leaf.mkdir(exist_ok=True)
    _move_processes(own, leaf)
    try:
        (own / "cgroup.subtree_control").write_text("+memory")
    except OSError:
        _leave_leaf(own)
        return False
    return True


def _leave_leaf(own: Path) -> None:
    """Undo _enter_leaf, unless another demo still needs it."""
    leaf = own / HOST_LEAF
    others = [path for path in own.glob(f"{NAME_PREFIX}*") if path != leaf]
    if not leaf.is_dir() or others:
        return
    with contextlib.suppress(OSError):
        (own / "cgroup.subtree_control").write_text("-memory")
    _move_processes(leaf, own)
    with contextlib.suppress(OSError):
        leaf.rmdir()


def _move_processes(source: Path, target: Path) -> None:
    for pid in (source / "cgroup.procs").read_text().split():
        # Gone already, or a kernel thread: neither is in the way.
        with contextlib.suppress(OSError):
            (target / "cgroup.procs").write_text(pid)


def make_cgroup(limit_bytes: int) -> MemoryCgroup:
    """Make a fresh memory cgroup below this process's own."""
    return MemoryCgroup.create(find_own_home(), str(os.getpid()), limit_bytes)
