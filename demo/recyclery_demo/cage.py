"""A cage with a memory cgroup and namespaces, like a container."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from recyclery.sandbox.cage import Cage, CannotCageError
from recyclery_demo.cgroups import SandboxCgroup, find_own_home
from recyclery_demo.guard import refused_namespaces


class CgroupCage(Cage):
    """One command as PID 1 of a namespace in `cgroup`, or a plain process without one.

    Leaving the `with` block also removes the cgroup. If this process dies, the guard does.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        cgroup: SandboxCgroup | None,
    ) -> None:
        self.cgroup = cgroup
        if cgroup is not None:
            self.guard = ("recyclery_demo.guard", str(cgroup.path), str(cgroup.version))
        super().__init__(command, environment=environment, folder=folder, log=log)

    def close(self) -> None:
        """End everything in the cage and remove its cgroup."""
        super().close()
        if self.cgroup is not None:
            self.cgroup.remove()


def make_cage_cgroup(limit_bytes: int) -> SandboxCgroup:
    """Make the cgroup of a cage; raises CannotCageError, also where no namespaces can be made."""
    if reason := refused_namespaces():
        raise CannotCageError(reason)
    return make_cgroup(limit_bytes)


def make_cgroup(limit_bytes: int) -> SandboxCgroup:
    """Make a new memory cgroup below this process's own."""
    return SandboxCgroup.create(find_own_home(), str(os.getpid()), limit_bytes)
