"""The process table, read from /proc (proc(5)), and the marker in the environment of children's processes."""

import os
import resource
from collections.abc import Callable, Iterable

from recyclery.observe.snapshot import Owner, Process

MARKER = b"RECYCLERY_CHILD="
# Between fork and exec a process has its parent's environment: it is read again until this old.
AFTER_EXEC_SECONDS = 2.0
PROC_READ_BYTES = 64 * 1024
# Larger than any process's `stat` or `status`: one read returns them whole.
SHORT_BYTES = 8 * 1024


def read_proc_file(path: str) -> bytes:
    """Return a file under /proc; empty when the process is gone or not readable."""
    # System calls: a file object costs a third more, a hundred times a second.
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = b""
        while part := os.read(file, PROC_READ_BYTES):
            content += part
        return content
    except OSError:
        return b""
    finally:
        os.close(file)


class OpenFiles:
    """Keeps short files under /proc open from tick to tick, which halves the cost of reading them.

    Reading fails when the process is gone, even if its pid was reused. At most half of the descriptors that
    this process may have are kept.
    """

    def __init__(self) -> None:
        self._most = resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._kept: dict[str, int] = {}
        self._used: dict[str, int] = {}

    def read(self, path: str) -> bytes:
        """Return a file's content; empty when the process is gone or not readable."""
        file = self._used.get(path) or self._kept.pop(path, None)
        if file is None:
            if len(self._used) + len(self._kept) >= self._most:
                return read_proc_file(path)
            try:
                file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return b""
        self._used[path] = file
        try:
            return os.pread(file, SHORT_BYTES, 0)
        except OSError:
            os.close(self._used.pop(path))
            return read_proc_file(path)

    def turn(self) -> None:
        """Close the files that were not read since the last call."""
        for file in self._kept.values():
            os.close(file)
        self._kept, self._used = self._used, {}


def read_processes(read: Callable[[str], bytes] = read_proc_file) -> list[Process]:
    """Return all visible processes, without memory figures."""
    entries = os.listdir("/proc")  # noqa: PTH208  # Path costs ten times as much
    found = (read_process(int(entry), read) for entry in entries if entry.isdigit())
    return [process for process in found if process is not None]


def read_process(pid: int, read: Callable[[str], bytes] = read_proc_file) -> Process | None:
    """Return one process without memory figures; None when it is gone."""
    stat = read(f"/proc/{pid}/stat")
    if not stat:
        return None
    # The name may contain parentheses and spaces: it ends at the last parenthesis.
    end = stat.rindex(b")")
    fields = stat[end + 2 :].split()
    return Process(
        pid=pid,
        start_ticks=int(fields[19]),
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode(),
        name=stat[stat.index(b"(") + 1 : end].decode(errors="replace"),
        cpu_ticks=int(fields[11]) + int(fields[12]),
        # Where its stack began: by chance at each exec, and as in the parent after a fork.
        image=int(fields[25]),
    )


def with_memory(process: Process, read: Callable[[str], bytes] = read_proc_file) -> Process:
    """Return the process with RssAnon + RssShmem: close to the cgroup's charge, at 1/70 of the cost of PSS."""
    status = read(f"/proc/{process.pid}/status")
    anon, shared = read_kib(status, b"\nRssAnon:"), read_kib(status, b"\nRssShmem:")
    # Field by field: `replace` costs three times as much.
    return Process(
        process.pid,
        process.start_ticks,
        process.parent,
        process.session,
        process.state,
        process.name,
        (anon + shared) * 1024,
        process.cpu_ticks,
        shared * 1024,
        process.image,
    )


def read_kib(status: bytes, key: bytes) -> int:
    """Return the KiB in one line of `status` or `smaps_rollup`; 0 where it has none."""
    start = status.find(key)
    return int(status[start + len(key) : status.index(b"\n", start + 1)].split()[0]) if start >= 0 else 0


class Markers:
    """Caches the owner in each process's marker; reads an environment once or twice in its life."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._owners: dict[tuple[int, int], Owner | None] = {}

    def read(self, processes: Iterable[Process], now: float) -> dict[int, Owner]:
        """Return the owners by pid of the processes with this run's marker."""
        owners: dict[tuple[int, int], Owner | None] = {}
        for process in processes:
            key = (process.pid, process.start_ticks)
            owner = self._owners.get(key)
            if owner is None and (key not in self._owners or now - process.started < AFTER_EXEC_SECONDS):
                owner = parse_marker(read_proc_file(f"/proc/{process.pid}/environ"), self._run)
            owners[key] = owner
        self._owners = owners
        return {pid: owner for (pid, _), owner in owners.items() if owner is not None}


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
    return read_kib(read_proc_file(f"/proc/{pid}/smaps_rollup"), b"\nPss:") * 1024


def read_anon_pss(pid: int) -> int | None:
    """Return the part of the PSS that `anon_bytes` counts in full, None where it cannot be read."""
    rollup = read_proc_file(f"/proc/{pid}/smaps_rollup")
    return (read_kib(rollup, b"\nPss_Anon:") + read_kib(rollup, b"\nPss_Shmem:")) * 1024 if rollup else None
