"""Which memory cgroup this process is in, as /proc tells it."""

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
