"""What the supervisor says of itself while a level is measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from recyclery.control.client import ask_governor
from recyclery.control.status_schema import Status
from recyclery.decide.budget import mib
from recyclery.observe.snapshot import TICK_SECONDS
from recyclery_worker.link import now

PROC = Path("/proc")
# How the observer names a limit that no kernel keeps: only the supervisor's own processes count.
STATED = "a stated budget"


@dataclass(frozen=True, slots=True)
class Look:
    """The container and the pool at one moment."""

    at: float
    floor_bytes: int
    """Without what the tuning itself holds."""
    hard_bytes: int
    limit_bytes: int
    oom_kills: int
    serves: bool
    """Whether the worker takes tasks, with all its children up."""
    recycles: Mapping[str, int]


def look(runtime_dir: Path, pool: str, ours: Iterable[int]) -> Look:
    """Ask the governor how things are; raises NoSupervisor or Declined."""
    status = msgspec.convert(ask_governor(runtime_dir, "glance"), Status)
    container, worker = status.container, status.pools[pool]
    apart = 0 if container.source == STATED else sum(map(held_bytes, ours))
    return Look(
        at=now(),
        floor_bytes=max(0, container.floor_bytes - apart),
        hard_bytes=container.hard_bytes,
        limit_bytes=container.limit_bytes,
        oom_kills=container.oom_kills,
        serves=worker.node is not None and len(worker.children) >= worker.concurrency,
        recycles=dict(worker.recycles),
    )


def why_it_does_not_fit(looks: list[Look]) -> str:
    """Say what shows that a level is too high for the memory; empty as long as nothing does."""
    first, last = looks[0], looks[-1]
    if last.oom_kills > first.oom_kills:
        return f"the kernel killed {last.oom_kills - first.oom_kills} for want of memory"
    if last.recycles.get("preempt", 0) > first.recycles.get("preempt", 0):
        return f"a child had to be killed before the kernel chose one: the floor passed {mib(last.hard_bytes)}"
    if len(looks) > 1 and all(each.floor_bytes > each.hard_bytes for each in looks[-2:]):
        return f"the floor is {mib(last.floor_bytes)}, past the hard level of {mib(last.hard_bytes)}"
    return ""


def held_bytes(pid: int) -> int:
    """Return a process's anonymous and shared memory; 0 when it is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except OSError:
        return 0
    pairs = (line.partition(":") for line in status.splitlines())
    return sum(int(value.split()[0]) << 10 for key, _, value in pairs if key in {"RssAnon", "RssShmem"})


def tree_cpu_seconds(root: int) -> float:
    """Return the CPU time of a process, of all below it, and of those of them that have been collected.

    A process's time goes to its parent when that collects it (proc(5), cutime), so nothing is lost by its end.
    """
    ticks: dict[int, int] = {}
    children: dict[int, list[int]] = {}
    for entry in os.scandir(PROC):
        if entry.name.isdecimal():
            try:
                stat = (PROC / entry.name / "stat").read_bytes()
            except OSError:
                continue
            fields = stat[stat.rindex(b")") + 2 :].split()
            pid = int(entry.name)
            children.setdefault(int(fields[1]), []).append(pid)
            ticks[pid] = sum(map(int, fields[11:15]))
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += children.get(pid, ())
    return total * TICK_SECONDS
