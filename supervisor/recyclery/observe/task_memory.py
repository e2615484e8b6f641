"""What each running task has added to its child's tree, for pools with `max_task_bytes`.

The task's memory is what its child has beyond what it held before, and the processes that started since.
Watched by RssAnon and RssShmem; once that passes the limit, read again with no page counted twice: what others
share by PSS, and of processes forked from the child only what they share with nobody.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from recyclery.config.settings import Pool
from recyclery.observe.processes import read_kib, read_proc_file
from recyclery.observe.snapshot import CLOCK_TICK_SECONDS, Child, Owner, Process

# To read the PSS of a tree with a browser takes 30 ms: again only after this time, or this growth.
READ_AGAIN_SECONDS = 5.0
READ_AGAIN_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class TaskStart:
    """A task when it was first observed: its child's own memory before it; and the last reading.

    Processes that started before `since` are none of it.
    """

    task_id: str
    own_bytes: int
    since: float
    watched_bytes: int = 0
    read_bytes: int = 0
    read_at: float | None = None


class TaskMemory:
    """Measures the tasks of pools with a limit from tick to tick."""

    def __init__(self) -> None:
        self._starts: dict[Owner, TaskStart] = {}

    def measure(self, children: Iterable[Child], pools: Iterable[Pool], at: float) -> tuple[Child, ...]:
        """Return the children with `task_bytes`, where the running task's figure passes its limit."""
        limited = {pool.name: pool for pool in pools if pool.limits_tasks}
        starts, self._starts = self._starts, {}
        return tuple(self._measure(child, limited, starts.get(child.owner), at) for child in children)

    def _measure(self, child: Child, pools: Mapping[str, Pool], start: TaskStart | None, at: float) -> Child:
        pool = pools.get(child.owner.pool)
        limit = pool.task_limit_bytes(child.task_name) if pool is not None else None
        # A trace's own memory is no task's.
        if child.task_id is None or limit is None or child.tracing:
            return child
        if start is None or start.task_id != child.task_id:
            start = first_seen(child, child.task_id, at)
        watched = watched_bytes(child, start)
        if watched > limit and is_reading_due(start, watched, limit, at):
            start = replace(start, watched_bytes=watched, read_bytes=read_task_bytes(child, start), read_at=at)
        self._starts[child.owner] = start
        return replace(child, task_bytes=min(watched, start.read_bytes)) if watched > limit else child


def first_seen(child: Child, task_id: str, at: float) -> TaskStart:
    """Return what a child held before a task, by its report; without one, what it holds now."""
    held = child.idle_bytes + child.idle_shared_bytes
    own = sum(process.anon_bytes for process in child.processes if process.pid == child.owner.pid)
    # The report of a task that follows a very short one comes late; that of the end before does not.
    since = child.last_task_ended or child.first_task_started or at
    return TaskStart(task_id, held or own, since)


def is_reading_due(start: TaskStart, watched: int, limit: int, at: float) -> bool:
    return (
        start.read_at is None
        or at - start.read_at >= READ_AGAIN_SECONDS
        or watched - start.watched_bytes > limit * READ_AGAIN_SHARE
    )


def watched_bytes(child: Child, start: TaskStart) -> int:
    """Return a task's memory by the cheap figure, which counts shared pages once for each process."""
    own = sum(process.anon_bytes for process in child.processes if process.pid == child.owner.pid)
    return max(0, own - start.own_bytes) + sum(each.anon_bytes for each in started_since(child, start.since))


def read_task_bytes(child: Child, start: TaskStart) -> int:
    """Return a task's memory with no page counted twice; what cannot be known is not counted."""
    own = next((process for process in child.processes if process.pid == child.owner.pid), None)
    if own is None:
        return 0
    # What it shares (RssShmem) others may have mapped too. Without any, nothing large has to be read.
    shared = min(own.shmem_bytes, read_shared_bytes(own.pid)) if own.shmem_bytes else 0
    total = max(0, own.anon_bytes - own.shmem_bytes + shared - start.own_bytes)
    program = read_program(own.pid)
    parents = {process.pid: process for process in child.processes}
    for process in started_since(child, start.since):
        rollup = read_proc_file(f"/proc/{process.pid}/smaps_rollup")
        if not rollup:
            # A browser's sandbox. What its parent had before the fork, both may still share.
            parent = parents.get(process.parent)
            inherited = parent.anon_bytes if parent is not None and parent.name == process.name else 0
            total += max(0, process.anon_bytes - process.shmem_bytes - inherited)
        elif program and read_program(process.pid) == program:
            total += read_kib(rollup, b"\nPrivate_Dirty:") << 10
        else:
            total += (read_kib(rollup, b"\nPss_Anon:") + read_kib(rollup, b"\nPss_Shmem:")) << 10
    return total


def read_shared_bytes(pid: int) -> int:
    """Return a process's share of the shared memory that it has mapped."""
    return read_kib(read_proc_file(f"/proc/{pid}/smaps_rollup"), b"\nPss_Shmem:") << 10


def read_program(pid: int) -> str:
    """Return the program that a process runs; empty where that cannot be read."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115  # what is read is a name, no path to follow
    return ""


def started_since(child: Child, since: float) -> Iterator[Process]:
    """Yield the processes that a child's task has started: itself, or by what started since or is kept for it.

    An older process (which the task before left) and what it starts meanwhile are none of the task's.
    """
    members = {process.pid: process for process in child.processes}
    for process in child.processes:
        if process.pid == child.owner.pid or not is_later(process, since):
            continue
        ancestors = list(list_ancestors(process, members, child.owner.pid))
        is_kept = any(each.pid in child.kept for each in ancestors)
        if is_kept or all(is_later(each, since) for each in ancestors):
            yield process


def list_ancestors(process: Process, members: Mapping[int, Process], top: int) -> Iterator[Process]:
    """Yield the parent of a process, its parent and so on, up to but without the child itself."""
    seen = {top, process.pid}
    while process.parent not in seen and process.parent in members:
        process = members[process.parent]
        seen.add(process.pid)
        yield process


def is_later(process: Process, since: float) -> bool:
    """Return whether a process started since then, as far as a clock tick tells."""
    return process.started + CLOCK_TICK_SECONDS > since
