"""The process between a cage and its command: it ends the command and everything that the command started.

    python -m recyclery.sandbox.guard [--cgroup PATH --version N] -- COMMAND ARG...

When standard input closes, because the cage was closed or its process was killed, every process started here
is killed and the cgroup removed. Standard output carries two lines, `started PID` and `exit STATUS`. With a
cgroup the command is PID 1 of a namespace in it; without, the guard adopts orphans.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path

from recyclery.observe.processes import read_processes
from recyclery.observe.snapshot import Process
from recyclery.sandbox.cgroups import SandboxCgroup

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
INPUT_SECONDS = 0.2
NOT_STARTED = 127


def main() -> int:
    """Start the command, forward signals, report its exit, and clean up once standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cgroup", type=Path)
    parser.add_argument("--version", type=int, default=1)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    cgroup = SandboxCgroup(args.cgroup, args.version) if args.cgroup else None
    try:
        child = _start(args.command, cgroup)
        report(f"started {child}")
        status = _watch(child)
        report(f"exit {status}")
        while not _is_input_closed():
            pass
    finally:
        _end_descendants()
        if cgroup is not None:
            cgroup.remove()
    return 0


def report(line: str) -> None:
    """Write a line to the cage, if its process is still there."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def _start(command: list[str], cgroup: SandboxCgroup | None) -> int:
    adopt_orphans()
    # Blocked until the handlers are set, so that an early TERM is forwarded and does not end the guard.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    if cgroup is not None:
        enter_pid_namespace()
    child = os.fork()
    if child == 0:
        _become(command, cgroup)
    for signum in FORWARDED:
        signal.signal(signum, lambda number, _frame: _send(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return child


def _become(command: list[str], cgroup: SandboxCgroup | None) -> None:
    try:
        die_with_parent()
        os.setsid()
        if cgroup is not None:
            cgroup.join()
            enter_mount_namespace()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(NOT_STARTED)


def _watch(child: int) -> int:
    """Reap until the command ends, killing it when standard input closes; return its status as a shell does."""
    while True:
        released = _is_input_closed()
        if released:
            _send(child, signal.SIGKILL)
        while True:
            try:
                pid, status = os.waitpid(-1, 0 if released else os.WNOHANG)
            except ChildProcessError:
                return NOT_STARTED
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                return 128 - code if code < 0 else code
            if pid == 0:
                break


def _is_input_closed() -> bool:
    """Return whether standard input is closed, after INPUT_SECONDS at most."""
    readable, _, _ = select.select([0], [], [], INPUT_SECONDS)
    return bool(readable) and os.read(0, 1024) == b""


def _end_descendants() -> None:
    """Kill every remaining descendant; orphans among them were adopted."""
    while left := descendants(os.getpid()):
        for process in left:
            _send(process.pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        time.sleep(0.01)


def descendants(ancestor_pid: int) -> list[Process]:
    """Return all descendants of a process; of a namespace's init they are all its processes."""
    children = defaultdict(list)
    for process in read_processes():
        children[process.parent].append(process)
    found, waiting = [], [ancestor_pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def _send(pid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signum)


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
    """Give this process its own mounts, with a /proc and a /dev/shm as in a container."""
    _check(_libc.unshare(_CLONE_NEWNS), "unshare(CLONE_NEWNS)")
    _mount(None, "/", None, _MS_REC | _MS_PRIVATE)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    if os.path.isdir(_SHARED_MEMORY):  # noqa: PTH112
        _mount("shm", _SHARED_MEMORY, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=64m,mode=1777")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    *arguments, options = [None if text is None else text.encode() for text in (source, target, kind, data)]
    _check(_libc.mount(*arguments, ctypes.c_ulong(flags), options), f"mount {target}")


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant, as PID 1 is in a namespace."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


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
    sys.exit(main())
