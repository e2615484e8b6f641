"""The process table, read from /proc (proc(5)), and the marker that our children's processes carry."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace

from recyclery.observe.snapshot import Owner, Process

MARKER = b"RECYCLERY_CHILD="
# A process read between fork and exec still shows its parent's environment: look again until this old.
SETTLED_SECONDS = 2.0
READ_BYTES = 64 * 1024


def list_processes() -> list[Process]:
    """Return every process that can be seen, without memory figures."""
    processes = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  # ten times a Path's price, once a second
        if entry.isdigit():
            process = read_process(int(entry))
            if process is not None:
                processes.append(process)
    return processes


def read_process(pid: int) -> Process | None:
    """Return one process without memory figures; None when it is gone."""
    stat = read_file(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name may hold anything, parentheses and spaces too: it ends at the last parenthesis.
    end = stat.rindex(b")")
    fields = stat[end + 2 :].split()
    return Process(
        pid=pid,
        start_ticks=int(fields[19]),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        name=stat[stat.index(b"(") + 1 : end].decode(errors="replace"),
    )


def with_memory(process: Process) -> Process:
    """Return the process with its RssAnon + RssShmem: near the cgroup's charge at 1/70 of PSS's price."""
    status = read_file(f"/proc/{process.pid}/status")
    kib = 0
    for key in (b"\nRssAnon:", b"\nRssShmem:"):
        start = status.find(key)
        if start >= 0:
            kib += int(status[start + len(key) : status.index(b"\n", start + 1)].split()[0])
    return replace(process, anon_bytes=kib * 1024)


def read_file(path: str) -> bytes:
    """Return a file under /proc; empty when the process is gone or not ours to read."""
    # Bare system calls: a file object costs a third more, some hundred times a second.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = b""
        while part := os.read(file, READ_BYTES):
            content += part
        return content
    except OSError:
        return b""
    finally:
        os.close(file)


class Markers:
    """Remembers which owner's marker each process carries; reads an environment once or twice in its life."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._owners: dict[tuple[int, int], Owner | None] = {}

    def read(self, processes: Iterable[Process], now: float) -> dict[int, Owner]:
        """Return owners by pid for those processes that carry the marker of this run."""
        owners: dict[tuple[int, int], Owner | None] = {}
        found = {}
        for process in processes:
            key = (process.pid, process.start_ticks)
            owner = self._owners.get(key)
            if owner is None and (key not in self._owners or now - process.started < SETTLED_SECONDS):
                owner = parse_marker(read_file(f"/proc/{process.pid}/environ"), self._run)
            owners[key] = owner
            if owner is not None:
                found[process.pid] = owner
        self._owners = owners
        return found


def parse_marker(environment: bytes, run: str) -> Owner | None:
    """Return the owner named in a process's environment, if it is of this run."""
    start = environment.find(MARKER)
    if start < 0 or (start > 0 and environment[start - 1]):
        return None
    value = environment[start + len(MARKER) :].split(b"\0", 1)[0].decode(errors="replace")
    try:
        marked_run, pool, pid, start_ticks = value.split("/")
        return Owner(pool, int(pid), int(start_ticks)) if marked_run == run else None
    except ValueError:
        return None


def read_pss(pid: int) -> int:
    """Return a process's proportional set size in bytes (smaps_rollup), 0 where it cannot be read."""
    rollup = read_file(f"/proc/{pid}/smaps_rollup")
    start = rollup.find(b"\nPss:")
    return int(rollup[start + 5 :].split(b"\n", 1)[0].split()[0]) * 1024 if start >= 0 else 0
