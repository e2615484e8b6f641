"""The memory cgroup of this process, and limited cgroups below it, on v1 and v2."""

import contextlib
import errno
import time
from dataclasses import dataclass
from pathlib import Path

from recyclery.observe.cgroup import locate
from recyclery.sandbox.cage import CannotCageError


@dataclass(frozen=True)
class MemoryHome:
    """The directory of the memory cgroup this process is in, and the mount it was found under."""

    version: int
    path: Path
    mount_point: Path


def find_memory_home(cgroup_text: str, mountinfo_text: str) -> MemoryHome | None:
    """Return this process's cgroup from /proc/self/cgroup and mountinfo; None where none is mounted."""
    located = locate(cgroup_text, mountinfo_text)
    if located is None:
        return None
    version, mount_point, below = located
    return MemoryHome(version, mount_point / below, mount_point)


def find_own_home() -> MemoryHome:
    """Return the memory cgroup of this process; raises CannotCageError where there is none."""
    try:
        home = find_memory_home(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
    except OSError as error:
        raise CannotCageError(f"/proc cannot be read: {error.strerror}") from error
    if home is None:
        raise CannotCageError("no memory cgroup is mounted here")
    if not home.path.is_dir():
        return MemoryHome(home.version, home.mount_point, home.mount_point)
    return home


# Takes over a cgroup's own processes: on cgroup v2 they may not be in a cgroup with limited children.
HOST_LEAF = "recyclery-demo-host"
NAME_PREFIX = "recyclery-demo-"
REMOVE_SECONDS = 5.0


# Files of each version: limit, limit of swap, usage, highest usage, OOM kills.
_FILES = {
    1: ("limit_in_bytes", "memsw.limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "oom_control"),
    2: ("max", "swap.max", "current", "peak", "events"),
}
_UNRECLAIMABLE_V2 = ("anon", "shmem", "slab_unreclaimable", "kernel_stack", "sock")


class SandboxCgroup:
    """A memory cgroup that we made."""

    def __init__(self, path: Path, version: int) -> None:
        self.path = path
        self.version = version
        files = [path / f"memory.{name}" for name in _FILES[version]]
        self._limit_file, self._swap_file, self._usage_file, self._peak_file, self._events_file = files

    @classmethod
    def create(cls, home: MemoryHome, name: str, limit_bytes: int) -> "SandboxCgroup":
        """Make a cgroup of this name below `home` with a limit and without swap."""
        try:
            parent = home.path if home.version == 1 else _open_parent_v2(home)
            cgroup = cls(parent / f"{NAME_PREFIX}{name}", home.version)
            cgroup.path.mkdir()
        except OSError as error:
            raise CannotCageError(f"no cgroup can be made in {home.path}: {error.strerror}") from error
        try:
            cgroup._limit_file.write_text(str(limit_bytes))
            # Missing where the kernel was started without swap accounting; then there is no swap to forbid.
            with contextlib.suppress(FileNotFoundError):
                cgroup._swap_file.write_text("0" if home.version == 2 else str(limit_bytes))
        except OSError as error:
            cgroup.remove()
            raise CannotCageError(f"{cgroup.path} takes no limit: {error.strerror}") from error
        return cgroup

    @property
    def kind(self) -> str:
        """The version, for reports."""
        return f"cgroup v{self.version}"

    def usage_bytes(self) -> int:
        """Return the current usage, page cache included."""
        return int(self._usage_file.read_text())

    def floor_bytes(self) -> int:
        """Return the unreclaimable part of the usage."""
        stat = _read_pairs(self.path / "memory.stat")
        if self.version == 2:
            return sum(stat.get(key, 0) for key in _UNRECLAIMABLE_V2)
        # v1 does not split its kernel memory: all but the file pages is unreclaimable.
        files = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
        return max(0, self.usage_bytes() - files)

    def peak_bytes(self) -> int | None:
        """Return the highest usage ever, or None on a kernel that does not record it (v2 before 5.19)."""
        try:
            return int(self._peak_file.read_text())
        except FileNotFoundError:
            return None

    def oom_kills(self) -> int:
        """Return how many processes the OOM killer killed here."""
        return _read_pairs(self._events_file).get("oom_kill", 0)

    def join(self) -> None:
        """Move the calling process into the cgroup."""
        (self.path / "cgroup.procs").write_text("0")

    def processes(self) -> list[int]:
        """Return the processes in the cgroup and in those below it."""
        pids: set[int] = set()
        for procs in self.path.glob("**/cgroup.procs"):
            with contextlib.suppress(OSError):
                pids.update(map(int, procs.read_text().split()))
        return sorted(pids)

    def remove(self) -> None:
        """Remove the cgroup; the kernel may take some moments to release the last process."""
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


def _read_pairs(path: Path) -> dict[str, int]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {key: int(value) for key, value in pairs}


def _open_parent_v2(home: MemoryHome) -> Path:
    """Return the cgroup in which a limited child can be made: our own, else its parent."""
    own = home.path
    if "memory" not in (own / "cgroup.controllers").read_text().split():
        raise CannotCageError("this container's cgroup has no memory controller")
    if "memory" in (own / "cgroup.subtree_control").read_text().split():
        return own
    try:
        (own / "cgroup.subtree_control").write_text("+memory")
        return own
    except OSError as error:
        if error.errno not in {errno.EBUSY, errno.EOPNOTSUPP}:
            raise
    # "No internal processes": a cgroup with processes of its own may not limit its children.
    if own != home.mount_point and (own / "memory.max").read_text().strip() == "max":
        return own.parent
    if own == home.mount_point and _enter_leaf(own):
        return own
    raise CannotCageError("this cgroup v2 has processes in it, so it can have no limited children")


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
        # Gone already, or a kernel thread: neither prevents limits.
        with contextlib.suppress(OSError):
            (target / "cgroup.procs").write_text(pid)
