"""The guard of a cage with a cgroup: its command is PID 1 of a namespace in it.

python -m recyclery_demo.guard PATH VERSION COMMAND ARG...
"""

import os
import sys
from ctypes import c_ulong
from pathlib import Path

from recyclery.sandbox.guard import check_result, guard_command, libc
from recyclery_demo.cgroups import SandboxCgroup

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWPID = 0x2000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 0x4_0000

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the mount point itself


def main() -> None:
    """Guard the command in the cgroup, and remove that."""
    path, version, *command = sys.argv[1:]
    cgroup = SandboxCgroup(Path(path), int(version))

    def enter() -> None:
        cgroup.join()
        enter_mount_namespace()

    try:
        guard_command(command, enter_pid_namespace, enter)
    finally:
        cgroup.remove()


def enter_pid_namespace() -> None:
    """Make the next child of this process PID 1 of a new namespace."""
    check_result(libc.unshare(_CLONE_NEWPID), "unshare(CLONE_NEWPID)")


def enter_mount_namespace() -> None:
    """Give this process its own mounts, with a /proc and a /dev/shm as in a container."""
    check_result(libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        _mount("shm", _SHARED_MEMORY, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=64m,mode=1777")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    *arguments, options = [None if text is None else text.encode() for text in (source, target, kind, data)]
    check_result(libc.mount(*arguments, c_ulong(flags), options), f"mount {target}")


def refused_namespaces() -> str | None:
    """Return why no namespaces can be made here, None where they can; a child process tries."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            enter_pid_namespace()
            grandchild = os.fork()
            if grandchild == 0:
                # /proc can only be mounted from inside the new namespace.
                try:
                    enter_mount_namespace()
                except OSError as error:
                    os.write(writing, str(error.strerror).encode())
                finally:
                    os._exit(0)
            os.waitpid(grandchild, 0)
        except OSError as error:
            os.write(writing, str(error.strerror).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answers:
        reason = answers.read()
    os.waitpid(child, 0)
    return reason or None


if __name__ == "__main__":
    main()
