"""Linux namespaces and process attributes that Python 3.11's standard library does not offer."""

import ctypes
import os
import signal

_CLONE_NEWNS = 0x0002_0000
_CLONE_NEWPID = 0x2000_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 0x4_0000
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - the mount point itself

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def enter_pid_namespace() -> None:
    """Make the next child of this process PID 1 of a new namespace."""
    _check(_libc.unshare(_CLONE_NEWPID), "unshare(CLONE_NEWPID)")


def enter_mount_namespace() -> None:
    """Give this process mounts of its own, with the /proc and the /dev/shm that a container would have."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        _mount("shm", _SHARED_MEMORY, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=64m,mode=1777")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    arguments = [value.encode() if value is not None else None for value in (source, target, kind)]
    _check(
        _libc.mount(*arguments, ctypes.c_ulong(flags), data.encode() if data is not None else None),
        f"mount {target}",
    )


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant, as PID 1 is in a namespace."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def refused_namespaces() -> str | None:
    """Return why no namespaces can be made here, None where they can; a child process tries it out."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 0
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
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answers:
        reason = answers.read()
    os.waitpid(child, 0)
    return reason or None
