"""What runs below a process, read from /proc."""

import contextlib
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NOT_BROWSERS = ("chromedriver", "chrome_crashpad")


@dataclass(frozen=True)
class Process:
    """One process as /proc/PID/stat shows it."""

    pid: int
    parent_pid: int
    state: str
    name: str

    @property
    def is_defunct(self) -> bool:
        """Whether it has ended and nobody has reaped it."""
        return self.state in {"Z", "X"}


def parse_stat(text: str) -> Process:
    """Read one /proc/PID/stat line; the name in brackets may itself hold brackets and spaces."""
    pid, _, rest = text.partition(" (")
    name, _, fields = rest.rpartition(") ")
    state, parent_pid, *_ = fields.split(" ")
    return Process(int(pid), int(parent_pid), state, name)


def list_processes() -> list[Process]:
    """Return every process this /proc shows."""
    processes = []
    for entry in os.scandir(_PROC):
        if entry.name.isdecimal():
            # Gone between the listing and the reading.
            with contextlib.suppress(OSError):
                processes.append(parse_stat((_PROC / entry.name / "stat").read_text(errors="replace")))
    return processes


def descendants(ancestor_pid: int) -> list[Process]:
    """Return all processes below one; in a PID namespace that is everything its init has."""
    children = defaultdict(list)
    for process in list_processes():
        children[process.parent_pid].append(process)
    found, waiting = [], [ancestor_pid]
    while waiting:
        below = children.pop(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def is_browser(process: Process) -> bool:
    """Whether this is the main process of a Chrome: its helpers all carry a --type."""
    if process.is_defunct or not process.name.startswith("chrom") or process.name in _NOT_BROWSERS:
        return False
    try:
        arguments = (_PROC / str(process.pid) / "cmdline").read_bytes()
    except OSError:
        return False
    return bool(arguments) and b"--type=" not in arguments


def private_bytes(process: Process) -> int:
    """Return the memory only this process accounts for, as near as it is cheap: anonymous and shared pages."""
    try:
        status = (_PROC / str(process.pid) / "status").read_text(errors="replace")
    except OSError:
        return 0
    pairs = (line.partition(":") for line in status.splitlines())
    return sum(int(value.split()[0]) << 10 for key, _, value in pairs if key in {"RssAnon", "RssShmem"})
