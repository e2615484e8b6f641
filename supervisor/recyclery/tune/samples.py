"""What a tuning reads of a level at work: the supervisor's status, its tasks' begins and ends, its history."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from recyclery.decide.budget import mib
from recyclery.decide.memory_model import PoolModel, TaskRun, learn, learn_idle
from recyclery.history.reader import Run
from recyclery.observe.snapshot import TICK_SECONDS
from recyclery.serve.client import ask_governor
from recyclery.serve.status import Status
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


AGAIN = frozenset({"RETRY", "REJECTED"})
"""Ends after which the same task comes once more."""


@dataclass(frozen=True, slots=True)
class TaskTimes:
    """One task, its times in seconds of CLOCK_BOOTTIME; None for what has not happened."""

    due: float
    began: float | None = None
    """For the first time: one that died, or is tried again, has been running since then."""
    ended: float | None = None
    failed: bool = False
    error: str = ""


@dataclass
class Marks:
    """The tasks by number."""

    tasks: dict[int, TaskTimes] = field(default_factory=dict)
    ends: list[tuple[float, int]] = field(default_factory=list)
    """When tasks ended, and their numbers, in the order of their ends."""

    def take_in(self, lines: Iterable[str]) -> None:
        """Read further lines of a file of marks."""
        ended = len(self.ends)
        for line in lines:
            kind, number_word, at_word, *rest = line.split()
            number, at = int(number_word), float(at_word)
            if kind == "due":
                self.tasks[number] = TaskTimes(at)
            elif number not in self.tasks:
                # Sent for a level before this one.
                continue
            elif kind == "began" and self.tasks[number].began is None:
                self.tasks[number] = replace(self.tasks[number], began=at)
            elif kind == "ended" and rest[0] not in AGAIN and self.tasks[number].ended is None:
                failed, error = rest[0] == "FAILURE", rest[1] if len(rest) > 1 else ""
                self.tasks[number] = replace(self.tasks[number], ended=at, failed=failed, error=error)
                self.ends.append((at, number))
        if len(self.ends) > ended:
            # Those of several children come as they were written.
            self.ends.sort()

    def errors(self) -> Counter[str]:
        """Return how many tasks failed, by the name of their error."""
        return Counter(task.error for _, number in self.ends if (task := self.tasks[number]).failed)

    def ended_between(self, after: float, until: float) -> list[TaskTimes]:
        """Return the tasks that ended after one moment, and not after another, in that order."""
        return [self.tasks[number] for at, number in self.ends if after < at <= until]


class MarksFile:
    """A file of marks, read as it grows."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self._file = path.open("rb")
        self._rest = b""

    def read(self) -> list[str]:
        """Return the whole lines that came since."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line.decode() for line in lines]

    def close(self) -> None:
        """Close it."""
        self._file.close()


def child_peaks(runs: Iterable[Run]) -> tuple[int, ...]:
    """Return for each child that ran tasks the most that it and all it started held."""
    peaks: dict[int, int] = {}
    for run in runs:
        held = max(parts.total for parts in (run.before, run.peak, run.after) if parts is not None)
        peaks[run.child] = max(peaks.get(run.child, 0), held)
    return tuple(peaks.values())


def learn_runs(model: PoolModel, runs: Iterable[Run]) -> PoolModel:
    """Return the model with these runs in it, as the supervisor would have learned from them."""
    for run in sorted(runs, key=lambda each: each.ended):
        if run.before is None or run.after is None or sum(run.tasks.values()) != 1:
            continue
        (name,) = run.tasks
        model = learn_idle(model, min(run.before.total, run.after.total))
        model = learn(
            model,
            TaskRun(
                pool=run.pool,
                task_name=name,
                tasks_before=run.place,
                before_bytes=run.before.total,
                peak_bytes=run.peak.total,
                after_bytes=run.after.total,
            ),
        )
    return model
