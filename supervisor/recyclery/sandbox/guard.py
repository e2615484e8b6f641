"""The process between a cage and its command: it ends the command and everything that the command started.

    python -m recyclery.sandbox.guard COMMAND ARG...

When standard input closes, because the cage was closed or its process was killed, every process started here
is killed; orphans among them were adopted. Standard output carries two lines, `started PID` and `exit STATUS`.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable

from recyclery.observe.processes import read_processes
from recyclery.observe.snapshot import Process

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
INPUT_SECONDS = 0.2
NOT_STARTED = 127
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
libc = ctypes.CDLL(None, use_errno=True)


def _nothing() -> None: ...


def guard_command(
    command: list[str], before_fork: Callable[[], None] = _nothing, before_exec: Callable[[], None] = _nothing
) -> None:
    """Start the command, forward signals, report its exit, and clean up once standard input closes.

    `before_fork` is called here, `before_exec` in the command's own process.
    """
    try:
        child = _start(command, before_fork, before_exec)
        _report(f"started {child}")
        _report(f"exit {_watch(child)}")
        while not _is_input_closed():
            pass
    finally:
        _end_descendants()


def _report(line: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(1, f"{line}\n".encode())


def _start(command: list[str], before_fork: Callable[[], None], before_exec: Callable[[], None]) -> int:
    # Orphaned descendants become our children, as they become those of PID 1 in a namespace.
    check_result(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")
    # Blocked until the handlers are set, so that an early TERM is forwarded and does not end the guard.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    before_fork()
    child = os.fork()
    if child == 0:
        _become(command, before_exec)
    for signum in FORWARDED:
        signal.signal(signum, lambda number, _frame: _send(child, number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    return child


def _become(command: list[str], before_exec: Callable[[], None]) -> None:
    try:
        check_result(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
        os.setsid()
        before_exec()
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
    """Return whether it is, after INPUT_SECONDS at most."""
    readable, _, _ = select.select([0], [], [], INPUT_SECONDS)
    return bool(readable) and os.read(0, 1024) == b""


def _end_descendants() -> None:
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


def check_result(result: int, what: str) -> None:
    """Raise OSError where a function of the C library failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    guard_command(sys.argv[1:])
