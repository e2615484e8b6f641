"""Which memory cgroup this process is in, as /proc tells it."""

import re
from dataclasses import dataclass
from pathlib import Path


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
    paths = {}
    for line in cgroup_text.splitlines():
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            paths[2] = path
        elif "memory" in controllers.split(","):
            paths[1] = path
    # A memory controller on a v1 line is the only one there is, whatever else is mounted (hybrid).
    version = 1 if 1 in paths else 2
    if version not in paths:
        return None
    found = None
    for root, mount_point, kind, options in _parse_mounts(mountinfo_text):
        if kind != ("cgroup" if version == 1 else "cgroup2"):
            continue
        if version == 1 and "memory" not in options.split(","):
            continue
        found = MemoryHome(version, _below(mount_point, root, paths[version]), mount_point)
    return found


def _parse_mounts(text: str) -> list[tuple[str, Path, str, str]]:
    mounts = []
    for line in text.splitlines():
        place, _, source = line.partition(" - ")
        fields, kinds = place.split(" "), source.split(" ")
        mounts.append((_unescape(fields[3]), Path(_unescape(fields[4])), kinds[0], kinds[2]))
    return mounts


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _below(mount_point: Path, root: str, path: str) -> Path:
    """Return the directory of a cgroup path under a mount that shows only what is below `root`."""
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            # The mount was made for another cgroup namespace; its top is all that can be named.
            return mount_point
        path = path[len(root) :]
    return mount_point / path.lstrip("/")


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
